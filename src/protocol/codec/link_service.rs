//! Services of devices of the local link, which know nothing of the system, in the record of the
//! node that lists them.

use core::net::IpAddr;

use heapless::Vec;
use minicbor::{
    Encode, Encoder,
    encode::{self, Write},
};

use super::{
    DecodeError,
    cbor::{CborReader, write},
    service::{Service, ServiceName, read_service},
};

/// Services of devices in one record at most.
pub const MAX_LINK_SERVICES: usize = 16;
/// Addresses of one device at most.
pub const MAX_LINK_ADDRS: usize = 2;
/// Bytes of a device's name at most: it is one label of the DNS.
pub const MAX_DEVICE_LEN: usize = 63;

const FIELD: &str = "services of the link";

/// A service of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkService<'a> {
    /// The name under which the device announces it. It may be any text, so it must be escaped
    /// before it reaches a terminal.
    pub device: &'a str,
    /// The service.
    pub service: Service,
    /// Where the device is, not the node.
    pub addrs: LinkAddrs,
}

/// The addresses of a device.
pub type LinkAddrs = Vec<IpAddr, MAX_LINK_ADDRS, u8>;

/// The services of devices in a record, as they are in it: they were read once, and are read again
/// when they are needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkServices<'a> {
    items: &'a [u8],
    count: usize,
}

impl<'a> LinkServices<'a> {
    /// Writes services to `buffer`: of those given, the first that fit and are valid, at most
    /// [`MAX_LINK_SERVICES`].
    pub fn new<'s>(
        services: impl Iterator<Item = &'s LinkService<'s>>,
        buffer: &'a mut [u8],
    ) -> Self {
        let (mut length, mut count) = (0, 0);
        for service in services {
            let room = buffer.get_mut(length..).unwrap_or_default();
            let is_valid = (1..=MAX_DEVICE_LEN).contains(&service.device.len());
            match write(service, room) {
                Ok(written) if is_valid && !service.addrs.is_empty() => {
                    length += written.len();
                    count += 1;
                }
                _ => {}
            }
            if count == MAX_LINK_SERVICES {
                break;
            }
        }
        Self {
            items: buffer.get(..length).unwrap_or_default(),
            count,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The services.
    pub fn iter(&self) -> impl Iterator<Item = LinkService<'a>> + use<'a> {
        let mut reader = CborReader::new(self.items);
        (0..self.count).map_while(move |_| read_link_service(&mut reader).ok())
    }

    /// Whether a device offers this service.
    pub fn offer(&self, name: &ServiceName) -> bool {
        self.iter().any(|it| it.service.name == *name)
    }

    /// Drops the last one.
    pub(super) fn pop(&mut self) {
        self.count = self.count.saturating_sub(1);
        let mut reader = CborReader::new(self.items);
        for _ in 0..self.count {
            // They were read before.
            let _ = read_link_service(&mut reader);
        }
        self.items = self.items.get(..reader.position()).unwrap_or_default();
    }

    /// The bytes, which tell whether two lists are the same.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.items
    }

    pub(super) fn read(r: &mut CborReader<'a>) -> Result<Self, DecodeError> {
        let (items, count) = r.raw_list(FIELD, MAX_LINK_SERVICES, |r| {
            read_link_service(r).map(|_| ())
        })?;
        match count {
            0 => Err(DecodeError::OutOfBounds {
                field: FIELD,
                bound: "1 to 16 services",
            }),
            _ => Ok(Self { items, count }),
        }
    }
}

fn read_link_service<'b>(r: &mut CborReader<'b>) -> Result<LinkService<'b>, DecodeError> {
    const DEVICE: &str = "device's name";
    const ADDRS: &str = "device's addresses";
    let wrong = |field, bound| DecodeError::OutOfBounds { field, bound };
    r.triple("service of the link")?;
    let device = r.text(DEVICE, MAX_DEVICE_LEN)?;
    let service = read_service(r)?;
    let addrs: LinkAddrs = r.list(ADDRS, |r| {
        let bytes = r.bytes(ADDRS, 16)?;
        let ip = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        let ip = ip.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
        ip.map_err(|_| wrong(ADDRS, "4 or 16 bytes"))
    })?;
    if device.is_empty() {
        return Err(wrong(DEVICE, "1 to 63 bytes"));
    }
    if addrs.is_empty() {
        return Err(wrong(ADDRS, "1 or 2 addresses"));
    }
    Ok(LinkService {
        device,
        service,
        addrs,
    })
}

impl<C> Encode<C> for LinkService<'_> {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(3)?.str(self.device)?;
        self.service.encode(e, c)?;
        e.array(self.addrs.len() as u64)?;
        for addr in &self.addrs {
            match addr {
                IpAddr::V4(ip) => e.bytes(&ip.octets())?,
                IpAddr::V6(ip) => e.bytes(&ip.octets())?,
            };
        }
        Ok(())
    }
}

impl<C> Encode<C> for LinkServices<'_> {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(self.count as u64)?;
        let written = e.writer_mut().write_all(self.items);
        written.map_err(encode::Error::write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::codec::service::Transport;

    fn printer(device: &str) -> LinkService<'_> {
        LinkService {
            device,
            service: Service {
                name: "ipp".try_into().unwrap(),
                transport: Transport::Tcp,
                port: 631,
            },
            addrs: [IpAddr::from([192, 168, 1, 50])].into_iter().collect(),
        }
    }

    #[test]
    fn services_come_back_and_the_last_is_dropped_first() {
        let all = ["B\u{fc}ro", "Lager", "Tor"].map(printer);
        let mut buffer = [0; 256];
        let mut services = LinkServices::new(all.iter(), &mut buffer);
        assert!(services.iter().eq(all.iter().cloned()));
        for left in [2, 1, 0, 0] {
            services.pop();
            assert!(services.iter().eq(all.iter().take(left).cloned()));
            assert_eq!(services.is_empty(), left == 0);
        }
    }

    #[test]
    fn sixteen_are_written_and_what_does_not_fit_or_is_not_valid_is_left_out() {
        let many = ["Lager"; 20].map(printer);
        let mut buffer = [0; 2048];
        assert_eq!(
            LinkServices::new(many.iter(), &mut buffer).iter().count(),
            16
        );
        let one = LinkServices::new(many.iter().take(1), &mut buffer)
            .bytes()
            .len();
        let mut small = [0; 100];
        let fitting = small.len() / one;
        assert_eq!(
            LinkServices::new(many.iter(), &mut small).iter().count(),
            fitting
        );
        let long = "a".repeat(64);
        let mut nowhere = printer("Tor");
        nowhere.addrs.clear();
        let bad = [printer(""), printer(&long), nowhere, printer("Tor")];
        let kept = LinkServices::new(bad.iter(), &mut buffer);
        assert!(kept.iter().eq([printer("Tor")]));
    }
}
