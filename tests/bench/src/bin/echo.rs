//! The reference for beats: a plain TCP server on async-io and one thread, without libp2p, that
//! answers every `--read` bytes with `--write` bytes.
//!
//! It prints `ready IP:PORT` and runs until it is killed.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    rc::Rc,
};

use argh::FromArgs;
use async_io::Async;
use futures::{AsyncReadExt, AsyncWriteExt};
use smol::LocalExecutor;

/// answers every so many bytes with so many bytes, on loopback
#[derive(FromArgs)]
struct Args {
    /// bytes of a question
    #[argh(option)]
    read: usize,

    /// bytes of an answer
    #[argh(option)]
    write: usize,
}

fn main() -> io::Result<()> {
    let args: Args = argh::from_env();
    let executor = Rc::new(LocalExecutor::new());
    async_io::block_on(executor.clone().run(async move {
        let listener = Async::<TcpListener>::bind((Ipv4Addr::LOCALHOST, 0))?;
        println!("ready {}", listener.get_ref().local_addr()?);
        loop {
            let (socket, _) = listener.accept().await?;
            executor
                .spawn(answer(socket, args.read, args.write))
                .detach();
        }
    }))
}

/// A client that disconnects ends only its own connection.
async fn answer(mut socket: Async<TcpStream>, read: usize, write: usize) -> io::Result<()> {
    socket.get_ref().set_nodelay(true)?;
    let mut question = vec![0; read];
    let answer = vec![0; write];
    loop {
        socket.read_exact(&mut question).await?;
        socket.write_all(&answer).await?;
    }
}
