//! The loop inside another program: on a thread of its own, without a logger, signals or a control
//! socket. It ends when all handles to it are dropped or closed.

use smol::channel::{Receiver, Sender};

use super::{
    Call, Error, Host, descriptors,
    driver::Driver,
    keys::read_psk,
    listen, load,
    machines::Owned,
    request::CallEvent,
    run_until_the_end,
    storage::{self, DataDir},
    trim::Heap,
    wait_for_random_numbers,
};
use crate::{
    config::Config,
    net::{each, executor},
    protocol::Instant,
};

/// What a program learns of a process that it has started.
#[derive(Debug)]
pub(crate) struct Started {
    /// Its peer id, in base58.
    pub(crate) peer_id: String,
    /// The multiaddresses that it listens on, with `/p2p`.
    pub(crate) addresses: Vec<String>,
}

/// Runs one process on this thread, and reports through `started` how the start went.
pub(crate) fn run(
    config: &Config,
    asked: Receiver<CallEvent>,
    started: &Sender<Result<Started, Error>>,
) {
    each::bound_lines();
    let mut machine = Owned::new(config.role);
    let ended = executor::block_on(serve(config, &mut machine, asked, started));
    executor::end();
    if let Err(why) = ended {
        // There is room for one message. If the loop had started already, the receiver is gone.
        let _ = started.try_send(Err(why));
    }
}

async fn serve(
    config: &Config,
    machine: &mut Owned,
    asked: Receiver<CallEvent>,
    started: &Sender<Result<Started, Error>>,
) -> Result<(), Error> {
    // Before anything is opened, because without a descriptor no reactor can be made.
    let plan = descriptors::plan_in_program(config.listen.len(), config.connections);
    let plan = plan.map_err(Error::new)?;
    wait_for_random_numbers()?;
    // The directory stays locked until the end.
    let dir = config.data_dir.as_deref().map(DataDir::open).transpose();
    let dir = dir.map_err(Error::new)?;
    let peer = match &dir {
        Some(dir) => load(dir, config.role)?,
        None => storage::in_memory().map_err(Error::new)?,
    };
    let psk = read_psk(config.psk.as_deref())?;
    let mut driver = Driver::new(config, peer, psk, plan, machine.places())?;
    driver.heap = Heap::OfHost;
    listen::listen(&mut driver, config)?;
    let peer_id = driver.own_id();
    let addresses = driver.listening();
    let _ = started.try_send(Ok(Started { peer_id, addresses }));
    run_until_the_end(&mut driver, config, &mut Program(asked)).await
}

/// The embedding program.
struct Program(Receiver<CallEvent>);

impl Host for Program {
    async fn next(&self) -> Call {
        match self.0.recv().await {
            Ok(event) => Call::Answer(event),
            Err(_) => Call::End,
        }
    }

    fn turned(&mut self, _: &Driver<'_>) -> Option<Instant> {
        None
    }

    fn stopping(&mut self) {}
}
