//! Services in a node's record, which the node offers to other programs.
//!
//! Invariants: at most [`MAX_SERVICES`] in a record, each with a valid name and a port that is not
//! 0.

use heapless::{String, Vec};
use minicbor::{Encode, Encoder, encode, encode::Write};

use super::{DecodeError, cbor::CborReader};

/// Services of a node at most.
pub const MAX_SERVICES: usize = 8;
/// Bytes of a service's name at most (RFC 6335, 5.1).
pub const MAX_SERVICE_NAME_LEN: usize = 15;

/// A service that a node offers, at each of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, as [`to_service_name`] accepts it.
    pub name: ServiceName,
    /// Its transport protocol.
    pub transport: Transport,
    /// Its port, never 0.
    pub port: u16,
}

/// The name of a service.
pub type ServiceName = String<MAX_SERVICE_NAME_LEN, u8>;
/// The services of a record.
pub type Services = Vec<Service, MAX_SERVICES, u8>;

/// The transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Code 0.
    Tcp,
    /// Code 1.
    Udp,
}

/// The text as the name of a service; `None` unless it is valid (RFC 6335, 5.1, in lower case): 1
/// to 15 of `a-z 0-9 -` with at least one letter, and each `-` between two others.
pub fn to_service_name(text: &str) -> Option<ServiceName> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let is_name = text.bytes().all(allowed)
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && text.split('-').all(|part| !part.is_empty());
    ServiceName::try_from(text).ok().filter(|_| is_name)
}

/// Reads the services of a record.
pub(super) fn read_services(r: &mut CborReader<'_>) -> Result<Services, DecodeError> {
    const FIELD: &str = "services";
    let services: Services = r.list(FIELD, read_service)?;
    if services.is_empty() {
        return Err(DecodeError::OutOfBounds {
            field: FIELD,
            bound: "1 to 8 services",
        });
    }
    Ok(services)
}

pub(super) fn read_service(r: &mut CborReader<'_>) -> Result<Service, DecodeError> {
    const NAME: &str = "service's name";
    const PORT: &str = "service's port";
    let wrong = |field, bound| DecodeError::OutOfBounds { field, bound };
    r.triple("service")?;
    let name = to_service_name(r.text(NAME, MAX_SERVICE_NAME_LEN)?);
    let transport = r.code("service's transport", |code| match code {
        0 => Some(Transport::Tcp),
        1 => Some(Transport::Udp),
        _ => None,
    })?;
    let port = u16::try_from(r.uint(PORT)?).ok();
    let port = port.filter(|port| *port > 0);
    Ok(Service {
        name: name.ok_or(wrong(NAME, "1 to 15 of a-z 0-9 - as in RFC 6335"))?,
        transport,
        port: port.ok_or(wrong(PORT, "1 to 65535"))?,
    })
}

impl<C> Encode<C> for Service {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(3)?
            .str(&self.name)?
            .u8(self.transport as u8)?
            .u16(self.port)?
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_rfc_6335() {
        for good in ["http", "a", "x9", "9p", "a-b-c", "abcdefghijklmno"] {
            assert_eq!(to_service_name(good).unwrap(), good);
        }
        let bad = [
            "",
            "abcdefghijklmnop",
            "80",
            "-a",
            "a-",
            "a--b",
            "Http",
            "a_b",
            "a.b",
            "é",
        ];
        for bad in bad {
            assert_eq!(to_service_name(bad), None, "{bad}");
        }
    }
}
