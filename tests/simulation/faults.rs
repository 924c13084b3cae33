//! The effect of a fault on the world.

use oc_discovery::protocol::{self, Addrs, Role};

use crate::{
    device::{DeviceNo, State},
    network::{ConnectionKey, End, Input},
    scenario::{Fault, Loss},
    world::World,
};

impl World {
    /// Applies a fault, or ends one.
    pub fn fault(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Crash {
                device,
                loss,
                forgetful,
            } => {
                if forgetful && self.devices[device].is_up() {
                    self.devices[device].flash.preset_indexers(Vec::new());
                }
                self.crash(device, loss);
            }
            Fault::Leave { device } => return self.leave(device),
            Fault::Restart { device } => return self.restart(device),
            Fault::Stop { device } => {
                let device = &mut self.devices[device];
                if device.state == State::Running {
                    device.state = State::Stopped(Vec::new());
                }
            }
            Fault::Resume { device } => return self.resume(device),
            Fault::Cut { from, to, until } => self.network.cut(self.now, (from, to), until),
            Fault::Break { device, loss } => self.break_connections(device, loss),
            Fault::StepClock {
                device,
                ahead,
                synchronised,
            } => {
                let device = &mut self.devices[device];
                device.stepped = true;
                (device.wall_ahead, device.synchronised) = (ahead, synchronised);
            }
            Fault::Move { device } => {
                if self.devices[device].is_up() && self.devices[device].role != Role::Native {
                    return self.move_away(device);
                }
            }
            Fault::Calm => {
                self.network.faulty = false;
                self.network.heal();
                self.calm_since = Some(self.now);
            }
        }
        Ok(())
    }

    /// The system reports to both sides that the connection is gone.
    pub fn notice(&mut self, connection: ConnectionKey) {
        if !self.network.connections[connection].silent {
            return;
        }
        self.network.end(connection);
        for stream in std::mem::take(&mut self.network.connections[connection].streams) {
            let ends = &self.network.streams[stream];
            for to in [ends.client, ends.server] {
                self.send(self.now, to, Input::End { stream });
            }
        }
    }

    /// The address that all connections of a process use is gone, and it has another one. The
    /// process ends the connections, and the peers are not notified.
    fn move_away(&mut self, no: DeviceNo) -> Result<(), String> {
        self.network.silence_all(self.now, no, &mut self.rng);
        self.network.leave(no);
        let device = &mut self.devices[no];
        device.move_port();
        let life = device.life;
        let own: Vec<_> = device
            .out
            .values()
            .chain(device.inbound.keys())
            .chain(device.watching.out.keys())
            .chain(device.watching.inbound.keys())
            .copied()
            .collect();
        for stream in own {
            self.send(self.now, (no, life), Input::End { stream });
        }
        self.network_changed(no)
    }

    /// The system tells the process that a link, a route or an address was added.
    pub fn network_changed(&mut self, no: DeviceNo) -> Result<(), String> {
        let device = &mut self.devices[no];
        match device.state {
            State::Running => {
                device.handle(self.now, protocol::Input::NetworkChanged);
                self.step(no, Vec::new())
            }
            // A stopped process does not notice it.
            State::Stopped(_) | State::Down(_) => Ok(()),
        }
    }

    /// The operator drains the indexer, or ends that.
    pub fn operate(&mut self, no: DeviceNo, input: protocol::Input<'_>) -> Result<(), String> {
        self.devices[no].handle(self.now, input);
        self.step(no, Vec::new())
    }

    fn resume(&mut self, no: DeviceNo) -> Result<(), String> {
        let state = &mut self.devices[no].state;
        match std::mem::replace(state, State::Running) {
            State::Stopped(pending) => {
                self.devices[no].resumed_at = self.now;
                self.step(no, pending)
            }
            other => {
                *state = other;
                Ok(())
            }
        }
    }

    fn crash(&mut self, no: DeviceNo, loss: Loss) {
        if !self.devices[no].is_up() {
            return;
        }
        if loss == Loss::Silent {
            self.network.silence_all(self.now, no, &mut self.rng);
        }
        let device = &mut self.devices[no];
        device.state = State::Down(loss);
        let (opened, accepted) = device.streams();
        device.lose_memory();
        self.ledger.forget(no);
        for stream in opened {
            self.end_stream(stream, End::Client);
        }
        for stream in accepted {
            self.end_stream(stream, End::Server);
        }
    }

    fn leave(&mut self, no: DeviceNo) -> Result<(), String> {
        let device = &mut self.devices[no];
        if device.state != State::Running || device.endpoint.is_ending() {
            return Ok(());
        }
        device.handle(self.now, protocol::Input::ShutDown);
        self.step(no, Vec::new())
    }

    /// The process that was told to end has waited for its last acks.
    pub fn end(&mut self, no: DeviceNo) {
        let device = &mut self.devices[no];
        device.flash.flush(device.instant(self.now));
        self.crash(no, Loss::Noticed);
    }

    fn restart(&mut self, no: DeviceNo) -> Result<(), String> {
        let device = &self.devices[no];
        if device.endpoint.is_ending() && device.state == State::Running {
            // The one before has to end first.
            self.end(no);
        }
        if self.devices[no].is_up() {
            return Ok(());
        }
        self.network.restarted(no);
        let natives: Vec<_> = self.devices[no]
            .natives
            .iter()
            .map(|&native| {
                let there = &self.devices[native];
                (there.peer, Addrs::from_iter([there.addr()]))
            })
            .collect();
        let seed = self.rng.bits();
        self.devices[no].boot(self.now, seed, &self.plan, &natives);
        for (indexer, _) in self.devices[no].flash.state().state.clone() {
            let indexer = self.number_of(&indexer);
            self.ledger.offered.insert((no, indexer), u64::MAX);
        }
        self.step(no, Vec::new())
    }

    fn break_connections(&mut self, no: DeviceNo, loss: Loss) {
        let device = &self.devices[no];
        let (opened, accepted) = device.streams();
        if loss == Loss::Noticed {
            for stream in opened.into_iter().chain(accepted) {
                self.end_stream(stream, End::Client);
                self.end_stream(stream, End::Server);
            }
        }
        self.network.silence_all(self.now, no, &mut self.rng);
        if loss == Loss::Noticed {
            self.network.restarted(no);
        }
    }
}
