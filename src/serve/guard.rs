//! Who may ask: requests that are meant for this server, from its own page.
//!
//! A page of another site could let the browser send requests here, by a name that leads to this machine (DNS rebinding) or
//! plainly across sites. The first is told by the host that the request names, the second by its origin.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, HeaderMap, ORIGIN};

/// Hosts that a request may name.
pub(super) struct Hosts {
    names: Vec<String>,
    port: u16,
}

impl Hosts {
    pub(super) fn new(bound: SocketAddr, allowed: &[String]) -> Self {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "[::1]".to_owned()];
        names.push(match bound.ip() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        });
        names.extend(allowed.iter().map(|name| name.to_ascii_lowercase()));
        Self { names, port: bound.port() }
    }

    /// Whether a request with these headers is meant for this server.
    pub(super) fn meant(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        host.to_str().is_ok_and(|host| self.allows(host))
    }

    /// Whether a request comes from the server's own page, or from no page at all.
    pub(super) fn own(&self, headers: &HeaderMap) -> bool {
        headers.get_all(ORIGIN).iter().all(|origin| {
            origin
                .to_str()
                .ok()
                .and_then(|origin| origin.strip_prefix("http://"))
                .is_some_and(|host| self.allows(host))
        })
    }

    /// `name`, or `name:port` with the server's port.
    fn allows(&self, host: &str) -> bool {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
            _ => (host, Some(80)),
        };
        port == Some(self.port) && self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_of_this_machine_with_the_port() {
        let hosts = Hosts::new("127.0.0.1:8000".parse().unwrap(), &["Lab.example".to_owned()]);
        for host in ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000", "lab.example:8000"] {
            assert!(hosts.allows(host), "{host}");
        }
        for host in [
            "",
            "127.0.0.1",
            "127.0.0.1:80",
            "evil.example:8000",
            "127.0.0.1:8000.evil.example",
            "[::1]",
            "127.0.0.1:",
            ":8000",
        ] {
            assert!(!hosts.allows(host), "{host}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let hosts = Hosts::new("127.0.0.1:8000".parse().unwrap(), &[]);
        let mut headers = HeaderMap::new();
        assert!(!hosts.meant(&headers));
        headers.append(HOST, "localhost:8000".parse().unwrap());
        assert!(hosts.meant(&headers) && hosts.own(&headers));
        headers.append(ORIGIN, "http://localhost:8000".parse().unwrap());
        assert!(hosts.own(&headers));
        headers.append(ORIGIN, "https://evil.example".parse().unwrap());
        assert!(!hosts.own(&headers));
        headers.append(HOST, "localhost:8000".parse().unwrap());
        assert!(!hosts.meant(&headers));
    }
}
