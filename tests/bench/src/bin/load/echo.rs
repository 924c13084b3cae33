//! The same work without libp2p: requests and answers of fixed lengths over plain TCP.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

use crate::{Task, Tell};

/// Connects, floods during the flood command, and disconnects.
pub(crate) async fn live(
    server: SocketAddr,
    question: usize,
    answer: usize,
    mut tasks: watch::Receiver<Task>,
    tell: Tell,
) -> io::Result<()> {
    let mut socket = TcpStream::connect(server).await?;
    socket.set_nodelay(true)?;
    let question = vec![0; question];
    let mut answer = vec![0; answer];
    tell.joined();
    loop {
        let task = *tasks.borrow_and_update();
        match task {
            Task::Leave => return Ok(()),
            Task::Hold => {}
            Task::Push { .. } => tell.pushed(),
            Task::Flood => {
                while !tasks.has_changed().map_err(io::Error::other)? {
                    socket.write_all(&question).await?;
                    socket.read_exact(&mut answer).await?;
                    tell.beaten();
                }
            }
        }
        tasks.changed().await.map_err(io::Error::other)?;
    }
}
