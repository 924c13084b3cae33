//! Parses what a node offers, and how that is checked.
//!
//! Invariant: each function takes text and returns a checked value, or an error of one sentence; at
//! most [`MAX_SERVICES`] services, and one check for each.

use super::{Check, Error, Probe, values::at_most};
#[cfg(feature = "mdns")]
use crate::protocol::codec::service::ServiceName;
use crate::protocol::codec::service::{MAX_SERVICES, Service, Transport, to_service_name};

/// How the problem of a check begins whose service is not among the services.
pub(super) const NO_SUCH_SERVICE: &str = "there is no such service";
/// Bytes of the path of an HTTP check.
const PATH_MAX: usize = 256;
/// Bytes of the command of a check.
const COMMAND_MAX: usize = 1024;

pub(super) fn services(values: &[String]) -> Result<Vec<Service>, Error> {
    at_most("--service", values, MAX_SERVICES)?;
    let mut services: Vec<Service> = Vec::new();
    for value in values {
        let service = service(value)?;
        let same =
            |other: &Service| (&other.name, other.transport) == (&service.name, service.transport);
        if services.iter().any(same) {
            return Err(Error::new(
                "--service",
                value,
                "this service is given twice; a service has one port",
            ));
        }
        services.push(service);
    }
    Ok(services)
}

/// What a service's name is.
pub(super) const A_NAME: &str =
    "a service's name is 1 to 15 of a-z 0-9 - with a letter, and each - stands between two others";

/// The name of a service that is looked for.
pub(crate) fn service_name(value: &str) -> Result<String, Error> {
    let name = to_service_name(value).ok_or_else(|| Error::new("--service", value, A_NAME))?;
    Ok(name.as_str().to_owned())
}

/// Services that pass between the network and the local links.
#[cfg(feature = "mdns")]
pub(super) fn bridged(
    option: &'static str,
    values: &[String],
    has_mdns: bool,
) -> Result<Vec<ServiceName>, Error> {
    at_most(option, values, MAX_SERVICES)?;
    let mut services = Vec::new();
    for value in values {
        let wrong = |problem| Error::new(option, value, problem);
        if !has_mdns {
            return Err(wrong("it is multicast DNS: leave out --no-mdns"));
        }
        let service = to_service_name(value).ok_or_else(|| wrong(A_NAME))?;
        if services.contains(&service) {
            return Err(wrong("this service is given twice; once is enough"));
        }
        services.push(service);
    }
    Ok(services)
}

fn service(value: &str) -> Result<Service, Error> {
    let wrong = |problem| Error::new("--service", value, problem);
    let form = || wrong("write it as NAME=PORT or NAME=udp:PORT");
    let (name, rest) = value.split_once('=').ok_or_else(form)?;
    let (transport, port) = match rest.split_once(':') {
        None => (Transport::Tcp, rest),
        Some(("tcp", port)) => (Transport::Tcp, port),
        Some(("udp", port)) => (Transport::Udp, port),
        Some(_) => return Err(form()),
    };
    let name = to_service_name(name).ok_or_else(|| wrong(A_NAME))?;
    // `parse` alone would take `+80` and `080`.
    match port
        .parse()
        .ok()
        .filter(|number: &u16| number.to_string() == port)
    {
        None | Some(0) => Err(wrong("give a port from 1 to 65535")),
        Some(port) => Ok(Service {
            name,
            transport,
            port,
        }),
    }
}

/// The service as its option has it.
#[cfg(feature = "program")]
pub(super) fn show(service: &Service) -> String {
    let transport = match service.transport {
        Transport::Tcp => "",
        Transport::Udp => "udp:",
    };
    format!("{}={transport}{}", service.name, service.port)
}

/// The checks of these services. A command may run only if that is allowed.
pub(super) fn checks(
    values: &[String],
    services: &[Service],
    allow_exec: bool,
) -> Result<Vec<Check>, Error> {
    at_most("--check", values, MAX_SERVICES)?;
    let mut checks: Vec<Check> = Vec::new();
    for value in values {
        let wrong = |problem: &str| Error::new("--check", value, problem);
        let (of, probe) = check(value, services)?;
        if matches!(probe, Probe::Exec(_)) && !allow_exec {
            return Err(wrong(
                "a command runs only with --allow-exec; give that too, or use tcp or http",
            ));
        }
        if checks.iter().any(|other| of.contains(&other.service)) {
            return Err(wrong("this service has a check already; give one"));
        }
        checks.extend(of.into_iter().map(|service| Check {
            service,
            probe: probe.clone(),
        }));
    }
    let runs = |check: &Check| matches!(check.probe, Probe::Exec(_));
    if allow_exec && !checks.iter().any(runs) {
        let problem = "no --check runs a command; leave this out";
        return Err(Error::bare("--allow-exec", problem));
    }
    Ok(checks)
}

/// The services that are checked, and how. A command checks both services of a name that is offered
/// on TCP and on UDP; others check the one on TCP.
fn check(value: &str, services: &[Service]) -> Result<(Vec<u8>, Probe), Error> {
    let wrong = |problem: String| Error::new("--check", value, problem);
    let form = "write it as SERVICE=tcp, SERVICE=http:/PATH or SERVICE=exec:COMMAND";
    let (name, how) = value.split_once('=').ok_or_else(|| wrong(form.into()))?;
    let probe = match how.split_once(':') {
        None if how == "tcp" => Probe::Tcp,
        Some(("http", path)) if is_path(path) => Probe::Http(path.to_owned()),
        Some(("http", _)) => {
            return Err(wrong(format!(
                "the path begins with / and has at most {PATH_MAX} bytes of ASCII without spaces"
            )));
        }
        Some(("exec", command)) if is_command(command) => Probe::Exec(command.to_owned()),
        Some(("exec", _)) => {
            return Err(wrong(format!(
                "the command has 1 to {COMMAND_MAX} bytes without control characters"
            )));
        }
        _ => return Err(wrong(form.into())),
    };
    // There are at most 8.
    let named = (0..).zip(services);
    let mut named = named.filter(|(_, service)| service.name == name).peekable();
    if named.peek().is_none() {
        return Err(wrong(format!(
            "{NO_SUCH_SERVICE}; give --service {name}=PORT too"
        )));
    }
    let any = matches!(probe, Probe::Exec(_));
    let checked = named.filter(|(_, service)| any || service.transport == Transport::Tcp);
    let checked: Vec<u8> = checked.map(|(at, _)| at).collect();
    if checked.is_empty() {
        return Err(wrong(
            "this service is on UDP, where nothing can be connected to; use exec".into(),
        ));
    }
    Ok((checked, probe))
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= PATH_MAX && path.bytes().all(|b| b.is_ascii_graphic())
}

fn is_command(command: &str) -> bool {
    (1..=COMMAND_MAX).contains(&command.len()) && !command.chars().any(char::is_control)
}
