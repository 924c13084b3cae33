//! Frames: an unsigned varint length and that many bytes (PROTOCOL.md; multiformats
//! unsigned-varint).
//!
//! A length over the limit is refused as soon as it is visible, even before the header is complete,
//! and before anything is allocated. A varint that is not minimal is refused. This is own code,
//! because the `unsigned-varint` crate drops the high bits of a length, and so would read a frame
//! that is too long as a short one.

use core::fmt;

/// Bytes of a heartbeat or of a directory request at most.
pub const MAX_FRAME: usize = 4096;
/// Bytes of a directory response at most.
pub const MAX_RESPONSE: usize = 16_384;
/// Bytes of a header at most. Three bytes hold 21 bits, and the greatest limit needs 15.
pub const MAX_HEADER: usize = 3;

/// Why bytes are not the start of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The body would be longer than allowed.
    TooLong {
        /// Bytes allowed.
        limit: usize,
    },
    /// The length is written with more bytes than it needs.
    NotMinimal,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit } => {
                write!(f, "the frame is longer than the {limit} bytes allowed")
            }
            Self::NotMinimal => f.write_str("the frame's length is not a minimal varint"),
        }
    }
}

impl core::error::Error for FrameError {}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its own length in bytes.
    pub length: usize,
    /// The length of the body that follows it, in bytes.
    pub body: usize,
}

impl Header {
    /// The length of the frame, in bytes.
    pub fn frame(&self) -> usize {
        self.length + self.body
    }
}

/// The header at the start of `bytes`. `None` if more bytes are needed, which is never the case
/// with [`MAX_HEADER`] bytes.
///
/// # Errors
/// The body is longer than `limit` (at most [`MAX_RESPONSE`]), or the varint is not minimal.
pub fn header(bytes: &[u8], limit: usize) -> Result<Option<Header>, FrameError> {
    debug_assert!(limit <= MAX_RESPONSE);
    let mut body = 0;
    for (index, &byte) in bytes.iter().take(MAX_HEADER).enumerate() {
        body |= usize::from(byte & 0x7f) << (7 * index);
        if body > limit {
            return Err(FrameError::TooLong { limit });
        }
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(FrameError::NotMinimal);
            }
            let length = index + 1;
            return Ok(Some(Header { length, body }));
        }
    }
    if bytes.len() < MAX_HEADER {
        return Ok(None);
    }
    Err(FrameError::TooLong { limit })
}

/// Writes the header of a body of this length to the front of `buffer`. Returns the written bytes.
pub fn write_header(body: usize, buffer: &mut [u8; MAX_HEADER]) -> &[u8] {
    debug_assert!(body <= MAX_RESPONSE);
    let (mut left, mut length) = (body, 0);
    for byte in buffer.iter_mut() {
        length += 1;
        *byte = (left & 0x7f) as u8;
        left >>= 7;
        if left == 0 {
            break;
        }
        *byte |= 0x80;
    }
    buffer.get(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn announcing(length: usize, body: usize) -> Header {
        Header { length, body }
    }

    #[test]
    fn the_limit_itself_is_allowed_and_one_byte_more_is_not() {
        for limit in [MAX_FRAME, MAX_RESPONSE] {
            let mut buffer = [0; MAX_HEADER];
            let at = write_header(limit, &mut buffer);
            assert_eq!(header(at, limit), Ok(Some(announcing(at.len(), limit))));
            let over = header(at, limit - 1);
            assert_eq!(over, Err(FrameError::TooLong { limit: limit - 1 }));
        }
    }

    #[test]
    fn a_too_long_frame_is_refused_before_its_length_is_complete() {
        assert_eq!(header(&[0x80], MAX_FRAME), Ok(None));
        assert_eq!(header(&[0x80, 0xa0], MAX_FRAME), Ok(None));
        assert_eq!(
            header(&[0x81, 0xa0], MAX_FRAME),
            Err(FrameError::TooLong { limit: MAX_FRAME })
        );
        let endless = [0x80, 0x80, 0x80];
        assert_eq!(
            header(&endless, MAX_FRAME),
            Err(FrameError::TooLong { limit: MAX_FRAME })
        );
        // 2^32: the low 32 bits are an allowed length.
        let wraps = [0x80, 0x80, 0x80, 0x80, 0x10];
        assert_eq!(
            header(&wraps, MAX_FRAME),
            Err(FrameError::TooLong { limit: MAX_FRAME })
        );
    }

    #[test]
    fn a_length_has_one_form() {
        assert_eq!(header(&[0x00], MAX_FRAME), Ok(Some(announcing(1, 0))));
        for padded in [[0x80, 0x00].as_slice(), &[0x81, 0x00], &[0x81, 0x80, 0x00]] {
            assert_eq!(header(padded, MAX_FRAME), Err(FrameError::NotMinimal));
        }
    }

    proptest! {
        #[test]
        fn headers_are_read_back(body in 0..=MAX_RESPONSE) {
            let mut buffer = [0; MAX_HEADER];
            let bytes = write_header(body, &mut buffer);
            prop_assert_eq!(header(bytes, MAX_RESPONSE), Ok(Some(announcing(bytes.len(), body))));
        }

        #[test]
        fn any_header_has_an_answer_that_more_bytes_do_not_change(bytes: [u8; 6]) {
            let whole = header(&bytes, MAX_FRAME);
            prop_assert_ne!(&whole, &Ok(None));
            for end in 0..bytes.len() {
                let part = header(&bytes[..end], MAX_FRAME);
                prop_assert!(part == Ok(None) || part == whole);
            }
        }
    }
}
