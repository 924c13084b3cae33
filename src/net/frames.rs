//! Frames over the streams of libp2p: the codec's [`frame`](crate::protocol::codec::frame) with
//! input and output.
//!
//! Invariant: a body is allocated only when its length is known to be within the limit.

use std::io;

use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::protocol::codec::{
    NoRoom,
    frame::{FrameError, Header, MAX_HEADER, MAX_RESPONSE, header, write_header},
};

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The body that an encoder of the codec writes, in memory of its own. The buffer has the size of
/// the largest frame, so every body fits. If one did not, the body would be empty, and the peer
/// refuses that.
pub(crate) fn encoded(encode: impl FnOnce(&mut [u8]) -> Result<&[u8], NoRoom>) -> Vec<u8> {
    let written = encode(&mut [0; MAX_RESPONSE]).map(<[u8]>::to_vec);
    debug_assert!(written.is_ok());
    written.unwrap_or_default()
}

/// The frame of a body, in one piece for one write.
pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    append(&mut frame, body);
    frame
}

/// Appends the [`frame`] of a body.
pub(crate) fn append(frames: &mut Vec<u8>, body: &[u8]) {
    frames.reserve_exact(MAX_HEADER + body.len());
    frames.extend_from_slice(write_header(body.len(), &mut [0; MAX_HEADER]));
    frames.extend_from_slice(body);
}

/// Reads one frame and returns its body. Does not read past its end.
///
/// # Errors
/// Those of `io`; `UnexpectedEof` if the stream ends before the frame does; `InvalidData` with a
/// [`FrameError`].
pub(crate) async fn read_frame(
    io: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(MAX_HEADER);
    loop {
        let mut byte = [0];
        io.read_exact(&mut byte).await?;
        head.extend_from_slice(&byte);
        if let Some(Header { body: length, .. }) = header(&head, limit)? {
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
pub(crate) async fn write_frame(io: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> io::Result<()> {
    io.write_all(&frame(body)).await?;
    io.flush().await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smol::{future::block_on, io::Cursor};

    use super::*;
    use crate::protocol::codec::frame::MAX_FRAME;

    #[test]
    fn a_body_may_have_as_many_bytes_as_the_limit_and_no_more() {
        for limit in [MAX_FRAME, MAX_RESPONSE] {
            let read = |limit, body| {
                let io = &mut Cursor::new(frame(&vec![1; body]));
                block_on(read_frame(io, limit))
            };
            assert_eq!(read(limit, limit).unwrap().len(), limit);
            let error = read(limit - 1, limit).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
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
    }
}
