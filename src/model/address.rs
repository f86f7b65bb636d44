//! `host:port`, parsed once and strictly.
//!
//! The dial address and the `Host` header both come from this value. Nothing that a URL parser could read as user-info,
//! a path, a query or another host may be in it, because parts of `__address__` can come from annotations that a tenant
//! writes.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use thiserror::Error;

/// The host part of an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IP address; IPv6 is written in brackets.
    Ip(IpAddr),
    /// A name for the resolver, in lower case.
    Name(Box<str>),
}

/// Where a target listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    host: Host,
    /// Absent where the text gave none: the scheme's default is dialled then, and nothing is added to `instance`.
    port: Option<u16>,
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Nothing there.
    #[error("no address")]
    Empty,
    /// A character that no `host:port` contains.
    #[error("{0:?} may not stand in an address: host:port is expected")]
    Character(char),
    /// The port is not a number from 1 to 65535.
    #[error("{0:?} is not a port: a number from 1 to 65535 is expected")]
    Port(String),
    /// The host is neither an IP address nor a name.
    #[error("{0:?} is neither an IP address nor a host name")]
    Host(String),
}

impl Address {
    /// Parses `host`, `host:port`, `[v6]` or `[v6]:port`; a bare IPv6 address is taken without a port.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        if let Some(bad) = text.chars().find(|&c| !allowed(c)) {
            return Err(AddressError::Character(bad));
        }
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            return Ok(Self { host: Host::Ip(ip.into()), port: None });
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']').ok_or_else(|| AddressError::Host(text.to_owned()))?;
            let ip = inside.parse::<Ipv6Addr>().map_err(|_| AddressError::Host(inside.to_owned()))?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(parse_port(port)?),
                None if after.is_empty() => None,
                None => return Err(AddressError::Port(after.to_owned())),
            };
            return Ok(Self { host: Host::Ip(ip.into()), port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(parse_port(port)?)),
            None => (text, None),
        };
        Ok(Self { host: parse_host(host)?, port })
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, if one was given.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The IP address, if the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ip(ip) => Some(ip),
            Host::Name(_) => None,
        }
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let refused = || AddressError::Port(text.to_owned());
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused());
    }
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(refused()),
    }
}

fn parse_host(text: &str) -> Result<Host, AddressError> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Host::Ip(ip));
    }
    let refused = || AddressError::Host(text.to_owned());
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_ok = |label: &str| !label.is_empty() && label.len() <= 63 && !label.contains(['[', ']']);
    if name.len() > 253 || !name.split('.').all(label_ok) {
        return Err(refused());
    }
    // A last label of digits only is a mistyped IPv4 address; resolvers read such things in surprising ways.
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(refused());
    }
    Ok(Host::Name(text.to_ascii_lowercase().into()))
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(IpAddr::V6(ip)) => write!(out, "[{ip}]"),
            Host::Ip(ip) => write!(out, "{ip}"),
            Host::Name(name) => out.write_str(name),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(out, "{}:{port}", self.host),
            None => write!(out, "{}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_can_be_dialled() {
        for (text, shown) in [
            ("10.0.0.1:15092", "10.0.0.1:15092"),
            ("10.0.0.1", "10.0.0.1"),
            ("fd00::1", "[fd00::1]"),
            ("[fd00::1]:15092", "[fd00::1]:15092"),
            ("Envoy.Mesh.svc:80", "envoy.mesh.svc:80"),
            ("my_host:1", "my_host:1"),
        ] {
            assert_eq!(Address::parse(text).expect(text).to_string(), shown);
        }
    }

    #[test]
    fn nothing_a_url_parser_could_read_otherwise() {
        for bad in [
            "",
            ":80",
            "h:",
            "h:0",
            "h:65536",
            "h:+80",
            "h:8a",
            "h:80:90",
            "10.0.0.1:x@evil:443",
            "x@evil.example:443",
            "h/p:80",
            "h:80/p",
            "h?x",
            "h#x",
            "h%41:80",
            "h :80",
            " h:80",
            "h:80\n",
            "[::1",
            "[::1]x",
            "[h]:80",
            "[10.0.0.1]:80",
            "10.0.0:80",
            "1.2.3.4.5:80",
            "0x7f.1:80",
            "h..x:80",
            "ü:80",
            "[fe80::1%eth0]:80",
            "h\\x:80",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
