//! Random walks: at each step any event that may come next. Time advances to the next event, but a
//! message may overtake it, be lost or be delayed, and any device may have a fault.

use oc_discovery::protocol::Rng;

use crate::{
    device::State,
    network::Input,
    runner::Run,
    scenario::{Fault, Loss, Plan},
    trace::Trace,
    world::{Event, World},
};

/// Steps of a walk before the calm.
const STEPS: u64 = 3_000;
/// How long a message is delayed, ms: values near the time limits of the protocol.
const HELD_UP: [u64; 8] = [500, 1_000, 1_990, 2_010, 4_990, 5_010, 8_000, 10_010];

/// One walk; its number determines it.
pub fn walk(number: u64, trace: Trace) -> Run {
    let mut rng = Rng::new(!number);
    let plan = Plan::small(&mut rng);
    let mut world = World::of_plan(plan, rng, trace);
    world.network.slow = 8;
    let outcome = go(&mut world);
    Run::of(world, outcome)
}

fn go(world: &mut World) -> Result<(), String> {
    for device in 0..world.devices.len() {
        let at = world.rng.below(2_000);
        world.push(at, Event::Fault(Fault::Restart { device }));
    }
    while world.steps < STEPS {
        world.walk_step()?;
    }
    for device in 0..world.devices.len() {
        world.fault(Fault::Resume { device })?;
        if device < world.plan.natives {
            world.fault(Fault::Restart { device })?;
        }
    }
    world.fault(Fault::Calm)?;
    world.run_until(world.now + world.plan.recovery())?;
    world.settled()
}

impl World {
    fn walk_step(&mut self) -> Result<(), String> {
        match self.rng.below(100) {
            0..=7 => self.deliver_one_now(),
            8..=10 => {
                self.take_one_away();
                Ok(())
            }
            11..=13 => {
                self.hold_one_up();
                Ok(())
            }
            14..=15 => {
                let fault = self.any_fault();
                self.happen(Event::Fault(fault))
            }
            _ => self.next(),
        }
    }

    /// The next event due.
    fn next(&mut self) -> Result<(), String> {
        let Some(((at, _), event)) = self.queue.pop_first() else {
            return Ok(());
        };
        self.now = self.now.max(at);
        self.happen(event)
    }

    /// The place in the queue of any message that is under way, if `which` takes it.
    fn any_message(&mut self, which: impl Fn(&Input) -> bool) -> Option<(u64, u64)> {
        let taken = |event: &Event| matches!(event, Event::Input { input, .. } if which(input));
        let messages = self.queue.iter().filter(|(_, event)| taken(event));
        let number = self.rng.below(messages.count() as u64) as usize;
        let mut messages = self.queue.iter().filter(|(_, event)| taken(event));
        messages.nth(number).map(|(key, _)| *key)
    }

    /// Lets a message overtake all others except those of its own stream.
    fn deliver_one_now(&mut self) -> Result<(), String> {
        let Some(key) = self.any_message(|_| true) else {
            return self.next();
        };
        let stream = match &self.queue[&key] {
            Event::Input { input, .. } => input.on_stream(),
            _ => None,
        };
        let first = stream.and_then(|stream| {
            let mut queue = self.queue.iter();
            let first = queue.find(|(_, event)| {
                matches!(event, Event::Input { input, .. } if input.on_stream() == Some(stream))
            });
            first.map(|(key, _)| *key)
        });
        let event = self.queue.remove(&first.unwrap_or(key));
        event.map_or(Ok(()), |event| self.happen(event))
    }

    /// Loses a request, a ping or an answer.
    fn take_one_away(&mut self) {
        if let Some(key) = self.any_message(|input| input.on_stream().is_none()) {
            let lost = self.queue.remove(&key);
            self.trace.note(self.now, &("lost", &lost));
            self.steps += 1;
        }
    }

    /// Delays a request, a ping or an answer.
    fn hold_one_up(&mut self) {
        if let Some(key) = self.any_message(|input| input.on_stream().is_none())
            && let Some(event) = self.queue.remove(&key)
        {
            let late = HELD_UP[self.rng.below(HELD_UP.len() as u64) as usize];
            self.trace.note(self.now, &("held up", late, &event));
            self.push(self.now + late, event);
            self.steps += 1;
        }
    }

    fn any_fault(&mut self) -> Fault {
        let all = self.devices.len() as u64;
        let device = self.rng.below(all) as usize;
        match (&self.devices[device].state, self.rng.below(12)) {
            (State::Down(_), _) => Fault::Restart { device },
            (State::Stopped(_), _) => Fault::Resume { device },
            (State::Running, 0) => Fault::Crash {
                device,
                loss: Loss::any(&mut self.rng),
                forgetful: self.rng.below(2) == 0,
            },
            (State::Running, 1) => Fault::Leave { device },
            (State::Running, 2) => Fault::Stop { device },
            (State::Running, 3 | 4) => self.plan.any_step(device, &mut self.rng),
            (State::Running, 5 | 6) => {
                let to = self.rng.below(all) as usize;
                let until = self.now + 500 + self.rng.below(15_000);
                Fault::Cut {
                    from: device,
                    to,
                    until,
                }
            }
            (State::Running, _) => self.plan.any_break(device, &mut self.rng),
        }
    }
}
