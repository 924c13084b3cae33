//! Frames: an unsigned varint length and that many bytes (PROTOCOL.md; multiformats unsigned-varint).
//!
//! A length over the limit is refused as soon as it can be seen, before the header is complete and before anything is
//! allocated. A varint that is longer than it needs to be is refused. Own code, because the `unsigned-varint` crate lets the
//! high bits of a length wrap away, which would read a too long frame as a short one.

use std::{fmt, io};

use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of a heartbeat or of a directory request at most.
pub const MAX_FRAME: usize = 4096;
/// Bytes of a directory response at most.
pub const MAX_RESPONSE: usize = 16_384;
/// Bytes of a header at most: three carry 21 bits, and the greatest limit has 15.
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

impl std::error::Error for FrameError {}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The length of the header at the start of `bytes` and of the body that it announces; `None` if more bytes are needed
/// to tell, of which there are never more than [`MAX_HEADER`].
///
/// # Errors
/// The body is longer than `limit` (at most [`MAX_RESPONSE`]), or the varint is not minimal.
pub fn header(bytes: &[u8], limit: usize) -> Result<Option<(usize, usize)>, FrameError> {
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
            return Ok(Some((index + 1, body)));
        }
    }
    if bytes.len() < MAX_HEADER {
        return Ok(None);
    }
    Err(FrameError::TooLong { limit })
}

/// The frame of a body that one of this module's encoders made, in one piece for one write.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    append(&mut frame, body);
    frame
}

/// Appends the [`frame`] of a body.
pub fn append(frames: &mut Vec<u8>, body: &[u8]) {
    frames.reserve_exact(MAX_HEADER + body.len());
    let mut left = body.len();
    while left >= 0x80 {
        frames.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    frames.push(left as u8);
    frames.extend_from_slice(body);
}

/// Reads one frame and returns its body. Reads not a byte past it.
///
/// # Errors
/// Those of `io`; `UnexpectedEof` if the stream ends before the frame does; `InvalidData` with a [`FrameError`].
pub async fn read_frame(io: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(MAX_HEADER);
    loop {
        let mut byte = [0];
        io.read_exact(&mut byte).await?;
        head.extend_from_slice(&byte);
        if let Some((_, length)) = header(&head, limit)? {
            let mut body = vec![0; length];
            io.read_exact(&mut body).await?;
            return Ok(body);
        }
    }
}

/// Writes `body` as one frame and flushes it.
///
/// # Errors
/// Those of `io`.
pub async fn write_frame(io: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> io::Result<()> {
    io.write_all(&frame(body)).await?;
    io.flush().await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smol::{future::block_on, io::Cursor};

    use super::*;

    #[test]
    fn the_limit_itself_is_allowed_and_one_byte_more_is_not() {
        for limit in [MAX_FRAME, MAX_RESPONSE] {
            let at = frame(&vec![1; limit]);
            let over = frame(&vec![1; limit + 1]);
            assert_eq!(header(&at, limit), Ok(Some((at.len() - limit, limit))));
            assert_eq!(header(&over, limit), Err(FrameError::TooLong { limit }));
            assert_eq!(
                block_on(read_frame(&mut Cursor::new(at), limit))
                    .unwrap()
                    .len(),
                limit
            );
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
        assert_eq!(header(&[0x00], MAX_FRAME), Ok(Some((1, 0))));
        for padded in [[0x80, 0x00].as_slice(), &[0x81, 0x00], &[0x81, 0x80, 0x00]] {
            assert_eq!(header(padded, MAX_FRAME), Err(FrameError::NotMinimal));
        }
    }

    #[test]
    fn an_early_end_is_an_error() {
        let whole = frame(&[7; 300]);
        for end in 0..whole.len() {
            let mut io = Cursor::new(&whole[..end]);
            let error = block_on(read_frame(&mut io, MAX_FRAME)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    proptest! {
        #[test]
        fn frames_are_read_back_one_after_another(bodies in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..300), 0..5))
        {
            let mut io = Cursor::new(Vec::new());
            for body in &bodies {
                block_on(write_frame(&mut io, body)).unwrap();
            }
            io.set_position(0);
            for body in &bodies {
                prop_assert_eq!(&block_on(read_frame(&mut io, MAX_FRAME)).unwrap(), body);
            }
            prop_assert!(block_on(read_frame(&mut io, MAX_FRAME)).is_err());
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
