//! Services, and the checks of the own ones.

use std::borrow::Cow;

use miniserde::{
    Deserialize, Serialize,
    ser::{self, Fragment},
};

/// A service that a node offers, or a device of its link.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Service {
    /// Its name (RFC 6335), in lower case.
    pub name: String,
    /// Its transport protocol.
    pub protocol: Protocol,
    /// Its port, never 0.
    pub port: u16,
    /// The name of the device that offers it; `None`: the node itself. It may be any text.
    pub device: Option<String>,
    /// The IP addresses of that device; `None`: those of the node.
    pub addresses: Option<Vec<String>>,
}

/// The last two fields are left out where there is no device.
impl Serialize for Service {
    fn begin(&self) -> Fragment<'_> {
        Fragment::Map(Box::new(ServiceFields(self, 0)))
    }
}

struct ServiceFields<'a>(&'a Service, usize);

impl ser::Map for ServiceFields<'_> {
    fn next(&mut self) -> Option<(Cow<'_, str>, &dyn Serialize)> {
        let Self(service, at) = self;
        *at += 1;
        let (name, value): (_, &dyn Serialize) = match *at {
            1 => ("name", &service.name),
            2 => ("protocol", &service.protocol),
            3 => ("port", &service.port),
            4 => ("device", service.device.as_ref()?),
            5 => ("addresses", service.addresses.as_ref()?),
            _ => return None,
        };
        Some((Cow::Borrowed(name), value))
    }
}

/// The transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Protocol {
    /// TCP.
    #[serde(rename = "tcp")]
    Tcp,
    /// UDP.
    #[serde(rename = "udp")]
    Udp,
}

/// The check of one of the own services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceCheck {
    /// The name of the service.
    pub service: String,
    /// Its transport protocol.
    pub protocol: Protocol,
    /// Its port.
    pub port: u16,
    /// The check as it was given: `tcp`, `http:PATH` or `exec:COMMAND`.
    pub check: String,
    /// Whether the service is in the record.
    pub state: CheckState,
    /// Failures since the check last passed, 255 at most; 3 before it was ever run.
    pub failures: u64,
    /// Time since the service was withdrawn, restored, or first checked, ms; `None` before that.
    pub since_ms: Option<u64>,
    /// Why the last run failed; `None` if it passed.
    pub error: Option<String>,
}

/// The state of a service with a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CheckState {
    /// No run has ended yet, so the service is not in the record.
    #[serde(rename = "starting")]
    Starting,
    /// The service is in the record.
    #[serde(rename = "ok")]
    Ok,
    /// It never passed, or failed three times in a row, so the service is not in the record.
    #[serde(rename = "failing")]
    Failing,
}
