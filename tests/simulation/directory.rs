//! Directory requests of a process, and those of others: each is one frame, as is its response.

use oc_discovery::protocol::{
    Addrs, Entries, IndexersAnswer, PeerId, RequestId,
    codec::directory::{Request, Response, Room},
    listing::Row,
    lookup::Query,
};

use crate::{
    device::{Device, DeviceNo},
    frames::{Frame, Seals},
    heartbeat::READER,
    invariants::ensure,
    network::{Input, PATIENCE},
    world::World,
};

impl World {
    /// Makes a request. A device that is not at the known address does not get it.
    pub fn request(
        &mut self,
        no: DeviceNo,
        (server, addrs): (PeerId, &Addrs),
        query: Query,
        request: &Request,
    ) -> Result<(), String> {
        let to = self.number_of(&server);
        let to = self.dialled(addrs, to);
        let frame = Frame::request(request)?;
        let device = &mut self.devices[no];
        let number = device.number();
        device.asked.insert(number, query);
        let from = (no, device.life);
        let request = Input::Request {
            from,
            number,
            frame,
        };
        self.pass_or_fail(no, to, (from, number), request);
        Ok(())
    }

    /// Processes a request.
    pub fn take_request(
        &mut self,
        no: DeviceNo,
        asker: ((DeviceNo, u64), u64),
        frame: &Frame,
    ) -> Result<(), String> {
        let request = frame.read_request()?;
        let from = self.devices[asker.0.0].peer;
        let known = self.known_alive(no);
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        let id = RequestId(device.number());
        device.requests.insert(id, asker);
        if let Request::Indexers {
            want, from: None, ..
        } = request
        {
            self.ledger.waiting.insert((no, id.0), (known, want));
        }
        let asker = (&from, id, READER);
        let frame = {
            let mut entries = Entries::new();
            match device.endpoint.serve(now, asker, request, &mut entries) {
                Some(response) => Frame::response(&response)?,
                None => return Ok(()),
            }
        };
        if let Some(answer) = offers_of(frame.read_response(&mut Room::default())?) {
            self.check_offer(no, id, &answer)?;
        }
        self.respond(no, id, frame);
        Ok(())
    }

    /// Answers a request.
    pub fn respond(&mut self, no: DeviceNo, request: RequestId, frame: Frame) {
        if let Some((to, number)) = self.devices[no].requests.remove(&request) {
            let frame = Some(frame);
            let response = Input::Response { number, frame };
            self.pass_or_fail(no, to, (to, number), response);
        }
    }

    /// Sends a request or a response. If it does not arrive, the asker's request fails in time.
    fn pass_or_fail(
        &mut self,
        no: DeviceNo,
        to: (DeviceNo, u64),
        (asker, number): ((DeviceNo, u64), u64),
        input: Input,
    ) {
        if !self.reply(no, to, input) {
            let frame = None;
            self.send(
                self.now + PATIENCE,
                asker,
                Input::Response { number, frame },
            );
        }
    }

    /// Processes the response to an own request, or its failure.
    pub fn take_response(
        &mut self,
        no: DeviceNo,
        number: u64,
        frame: Option<Frame>,
    ) -> Result<(), String> {
        let mut room = Room::default();
        let response = frame.as_ref();
        let response = response.map(|frame| frame.read_response(&mut room));
        let response = response.transpose()?;
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        let Some(query) = device.asked.remove(&number) else {
            return Ok(());
        };
        let Device {
            endpoint, listed, ..
        } = device;
        let mut said = Ok(());
        let say = &mut |_, row: &Row<'_>| said = said.and(listed.say(row));
        endpoint.responded(now, query, response.as_ref(), &Seals, say);
        said.or_else(|rule| ensure(false, no, rule))?;
        match (query, response) {
            (Query::Machine(_), Some(Response::Indexers(answer))) => {
                self.note_offers(no, answer.offers.iter());
            }
            (Query::Machine(_) | Query::Network(_), _) => {}
            (Query::Listing { .. }, response) => {
                let listed = &mut self.devices[no].listed;
                listed.note_told(self.now, query, response.as_ref());
            }
            (Query::Lookup(_), response) => self.note_told(no, query, response.as_ref()),
        }
        Ok(())
    }
}

/// The answer to a node that asks for a lease, if the response is one.
pub fn offers_of(response: Response<'_>) -> Option<IndexersAnswer<'_>> {
    match response {
        Response::Indexers(answer) => Some(answer),
        _ => None,
    }
}
