//! Where a redirect may lead.
//!
//! A target's redirects are text that a stranger wrote. What comes out of here is either a place that the kind of
//! connection may go to, or `redirect_refused` with that place named. Always holds: nothing is followed further than ten
//! times, no place is visited twice, user-info is never taken along. It must not know: how anything is dialled.
//!
//! The URL parser used here decides nothing about who is asked: a SPIFFE scrape stays on the connection that it has,
//! whatever the text says, and so does not depend on two parsers reading one URL alike.

use std::net::IpAddr;

use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use url::Url;

use crate::model::{Address, Failure, Host, Reason, Scheme};

/// As Prometheus: no more than ten hops.
const MAX_HOPS: usize = 10;

/// The places that one scrape has been sent to.
#[derive(Debug)]
pub(super) struct Trail {
    /// The first is where the scrape began, the last is where it is.
    visited: Vec<Url>,
}

impl Trail {
    /// Begins at the target.
    pub(super) fn from(scheme: Scheme, address: &Address, path_and_query: &str) -> Result<Self, Failure> {
        let text = format!("{}://{address}{path_and_query}", scheme.as_str());
        let refused = |why: String| Failure::new(Reason::NameResolution, format!("{address} is no host: {why}"));
        let start = Url::parse(&text).map_err(|error| refused(error.to_string()))?;
        // The two parsers must agree on who is meant: "0x7f.1", for one, is a name to one and an IP address to the other.
        let agreed = match (address.host(), start.host()) {
            (Host::Ip(IpAddr::V4(ours)), Some(url::Host::Ipv4(theirs))) => *ours == theirs,
            (Host::Ip(IpAddr::V6(ours)), Some(url::Host::Ipv6(theirs))) => *ours == theirs,
            (Host::Name(ours), Some(url::Host::Domain(theirs))) => **ours == *theirs,
            _ => false,
        };
        if !agreed {
            return Err(refused(format!("in a URL it means {:?}", start.host_str().unwrap_or_default())));
        }
        Ok(Self { visited: vec![start] })
    }

    /// Where the scrape is now.
    pub(super) fn here(&self) -> &Url {
        // Never empty: `from` puts the first one in and nothing takes any out.
        &self.visited[self.visited.len() - 1]
    }

    /// Whether the scrape has left the origin (scheme, host and port) that it began at.
    pub(super) fn left_origin(&self) -> bool {
        self.visited.iter().any(|place| place.origin() != self.visited[0].origin())
    }

    /// Takes one hop. `may_leave` is asked with where we are and where the answer sends us, once the origin changes.
    pub(super) fn follow(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        may_leave: impl FnOnce(&Url, &Url) -> Result<(), &'static str>,
    ) -> Result<&Url, Failure> {
        let refused = |place: &str, why: &str| {
            Failure::new(Reason::RedirectRefused, format!("{} to {place}: {why}", status.as_u16()))
        };
        let Some(location) = headers.get(LOCATION) else {
            return Err(refused("nowhere", "the answer has no Location header"));
        };
        let here = self.here();
        let Some(next) = location.to_str().ok().and_then(|text| here.join(text).ok()) else {
            return Err(refused(&format!("{location:?}"), "this is not a URL"));
        };
        let mut next = next;
        next.set_fragment(None);
        if !matches!(next.scheme(), "http" | "https") {
            return Err(refused(&shown(&next), "neither http nor https"));
        }
        if !next.username().is_empty() || next.password().is_some() {
            return Err(refused(&shown(&next), "it carries a user name or a password"));
        }
        if next.origin() != here.origin() {
            may_leave(here, &next).map_err(|why| refused(&shown(&next), why))?;
        }
        if self.visited.contains(&next) {
            return Err(refused(&shown(&next), "it leads in a circle"));
        }
        if self.visited.len() > MAX_HOPS {
            return Err(refused(&shown(&next), "more than 10 redirects"));
        }
        self.visited.push(next);
        Ok(self.here())
    }
}

/// Whether an answer with this status sends us elsewhere.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Path and query of a place, as they stand in a request line.
pub(super) fn path_and_query(place: &Url) -> String {
    match place.query() {
        Some(query) => format!("{}?{query}", place.path()),
        None => place.path().to_owned(),
    }
}

/// A place for people: user-info and query may hold secrets.
fn shown(place: &Url) -> String {
    format!("{}{}", place.origin().ascii_serialization(), place.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail() -> Trail {
        let address = Address::parse("10.0.0.1:15092").expect("valid");
        Trail::from(Scheme::Https, &address, "/stats/prometheus?usedonly").expect("valid")
    }

    fn follow(trail: &mut Trail, location: &str) -> Result<String, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location.parse().expect("a header value"));
        trail.follow(StatusCode::FOUND, &headers, |_, _| Err("elsewhere")).map(path_and_query)
    }

    #[test]
    fn the_same_place_in_every_spelling() {
        for (location, expected) in [
            ("/metrics", "/metrics"),
            ("metrics?a=b#c", "/stats/metrics?a=b"),
            ("?other", "/stats/prometheus?other"),
            ("https://10.0.0.1:15092/metrics", "/metrics"),
            ("HTTPS://10.0.0.1:15092", "/"),
            ("//10.0.0.1:15092/x", "/x"),
            ("../../../x", "/x"),
        ] {
            assert_eq!(follow(&mut trail(), location).expect(location), expected);
        }
    }

    #[test]
    fn every_other_place_is_refused() {
        for location in [
            "https://10.0.0.2:15092/metrics",
            "https://10.0.0.1:15091/metrics",
            "https://10.0.0.1/metrics",
            "http://10.0.0.1:15092/metrics",
            "//10.0.0.2/metrics",
            "http://169.254.169.254/latest/meta-data/",
            "https://10.0.0.1:15092@evil.example/metrics",
            "https://user@10.0.0.1:15092/metrics",
            "https://user:s3cret@10.0.0.1:15092/metrics?s3cret",
            "file:///etc/passwd",
            "\\\\10.0.0.2\\metrics",
            "https://",
        ] {
            let failure = follow(&mut trail(), location).expect_err(location);
            assert_eq!(failure.reason, Reason::RedirectRefused, "{location}");
            assert!(!failure.detail.contains("s3cret"), "{failure}");
        }
    }

    #[test]
    fn a_host_that_two_parsers_read_differently_is_refused() {
        for text in ["0x7f", "a.0x1:80", "127.0x1"] {
            let address = Address::parse(text).expect(text);
            assert!(Trail::from(Scheme::Http, &address, "/metrics").is_err(), "{text} was accepted");
        }
        for text in ["10.0.0.1", "[fd00::1]:15092", "my_host:1", "a.example.:80", "xn--bcher-kva.example"] {
            let address = Address::parse(text).expect(text);
            assert!(Trail::from(Scheme::Https, &address, "/metrics?a=b").is_ok(), "{text} was refused");
        }
    }

    #[test]
    fn circles_and_long_ways_end() {
        let mut circle = trail();
        follow(&mut circle, "/a").expect("new");
        follow(&mut circle, "/b").expect("new");
        assert!(follow(&mut circle, "/a#again").expect_err("seen").detail.contains("circle"));
        let mut long = trail();
        for hop in 0..MAX_HOPS {
            follow(&mut long, &format!("/{hop}")).expect("within the bound");
        }
        assert!(follow(&mut long, "/more").expect_err("too many").detail.contains("10 redirects"));
    }

    #[test]
    fn an_answer_without_a_location_is_refused() {
        let failure = trail().follow(StatusCode::FOUND, &HeaderMap::new(), |_, _| Ok(())).expect_err("no location");
        assert_eq!(failure.reason, Reason::RedirectRefused);
    }
}
