//! HTTP proxies, and who is asked without one.
//!
//! What is asked through which proxy is decided here, by the rules of Go's `httpproxy` as Prometheus uses them; how a
//! proxy is spoken to is not. A proxy itself is reached over `http`: what goes through it to `https` is a tunnel.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use url::{Host, Position, Url};

use super::Secret;
use crate::model::Cidr;

/// Through which proxies servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxies {
    /// For servers that are asked over `http`.
    pub http: Option<Proxy>,
    /// For servers that are asked over `https`.
    pub https: Option<Proxy>,
    /// Who is asked without one; `None`: nobody. Where it is written, loopback always is.
    pub except: Option<NoProxy>,
    /// Said to a proxy that is to make a tunnel.
    pub connect_headers: Vec<(HeaderName, Secret)>,
}

impl Proxies {
    /// The proxy through which this URL is asked for.
    pub fn for_url(&self, url: &Url) -> Option<&Proxy> {
        let proxy = if url.scheme() == "https" { self.https.as_ref() } else { self.http.as_ref() };
        proxy.filter(|_| self.except.as_ref().is_none_or(|except| !except.covers(url)))
    }

    /// All that nobody is to see: passwords in each form in which they are sent, and the headers for proxies.
    pub fn secrets(&self) -> impl Iterator<Item = Secret> {
        let of_proxies = [&self.http, &self.https].into_iter().flatten().flat_map(Proxy::secrets);
        of_proxies.chain(self.connect_headers.iter().map(|(_, value)| value.clone()))
    }

    /// The headers for a proxy that is to make a tunnel, without its `Proxy-Authorization`; marked so that no library
    /// shows them.
    pub fn connect_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.connect_headers {
            let mut value = HeaderValue::from_str(value.expose()).expect("checked where the file is read");
            value.set_sensitive(true);
            headers.append(name, value);
        }
        headers
    }
}

/// A proxy that is reached over `http`. It is shown without user name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    url: Url,
    user_info: Option<Secret>,
}

impl Proxy {
    /// The proxy at this URL, of which the host, the port, the user name and the password count.
    ///
    /// # Errors
    /// What is wrong with it, without its text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "this is not a URL")?;
        if url.scheme() != "http" || !url.has_host() {
            return Err("proxies are reached over http only");
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let user_info = (!url.username().is_empty() || url.password().is_some()).then(|| {
            Secret::new(format!("{}:{}", decoded(url.username()), decoded(url.password().unwrap_or_default())))
        });
        let bare = format!("http://{}/", &url[Position::BeforeHost..Position::AfterPort]);
        // What the HTTP client could not read as an address it would pass by.
        bare.parse::<http::Uri>().map_err(|_| "its host cannot be asked for over HTTP")?;
        Ok(Self { url: Url::parse(&bare).map_err(|_| "this is not a URL")?, user_info })
    }

    /// Where it is, without user name and password.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// User name with password, the password alone, and both as they are sent.
    fn secrets(&self) -> Vec<Secret> {
        let Some(user_info) = &self.user_info else { return Vec::new() };
        let password = user_info.expose().split_once(':').map_or("", |(_, password)| password);
        vec![user_info.clone(), Secret::new(password.to_owned()), Secret::new(BASE64.encode(user_info.expose()))]
    }

    /// The value of `Proxy-Authorization`, marked so that no library shows it.
    pub fn authorization(&self) -> Option<HeaderValue> {
        let encoded = format!("Basic {}", BASE64.encode(self.user_info.as_ref()?.expose()));
        let mut value = HeaderValue::try_from(encoded).expect("base64 is ASCII");
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Proxy({self})")
    }
}

/// `no_proxy`: who is asked without a proxy, besides loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoProxy(Vec<Exception>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    Everybody,
    Range(Cidr),
    Ip(IpAddr, Option<u16>),
    /// Names that end in this, which begins with a point; `true`: also what stands behind the point.
    Names(String, bool, Option<u16>),
}

impl NoProxy {
    /// Reads a list with commas, such as `10.0.0.0/8,.svc,prometheus.example:9090`. What cannot be understood excepts
    /// nobody.
    pub fn parse(text: &str) -> Self {
        Self(text.split(',').filter_map(|entry| exception(&entry.trim().to_lowercase())).collect())
    }

    fn covers(&self, url: &Url) -> bool {
        let port = url.port_or_known_default();
        let same = |other: &Option<u16>| other.is_none() || *other == port;
        match url.host() {
            None => false,
            Some(Host::Domain("localhost")) => true,
            Some(Host::Domain(name)) => self.0.iter().any(|exception| match exception {
                Exception::Everybody => true,
                Exception::Names(end, itself, other) => {
                    (name.ends_with(end.as_str()) || (*itself && name == &end[1..])) && same(other)
                }
                Exception::Range(_) | Exception::Ip(..) => false,
            }),
            Some(Host::Ipv4(ip)) => self.covers_ip(ip.into(), same),
            Some(Host::Ipv6(ip)) => self.covers_ip(ip.into(), same),
        }
    }

    fn covers_ip(&self, ip: IpAddr, same: impl Fn(&Option<u16>) -> bool) -> bool {
        let ip = ip.to_canonical();
        ip.is_loopback()
            || self.0.iter().any(|exception| match exception {
                Exception::Everybody => true,
                Exception::Range(range) => range.contains(ip),
                Exception::Ip(other, port) => *other == ip && same(port),
                Exception::Names(..) => false,
            })
    }
}

fn exception(entry: &str) -> Option<Exception> {
    if entry == "*" {
        return Some(Exception::Everybody);
    }
    if let Ok(range) = entry.parse() {
        return Some(Exception::Range(range));
    }
    let (host, port) = match with_port(entry) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (entry, None),
    };
    if let Ok(ip) = host.parse() {
        return Some(Exception::Ip(ip, port));
    }
    let host = if host.starts_with("*.") { &host[1..] } else { host };
    let (name, itself) = match host.strip_prefix('.') {
        Some(name) => (name, false),
        None => (host, true),
    };
    // As it stands in a URL, where a name has ASCII letters only.
    let name = match Host::parse(name) {
        Ok(Host::Domain(name)) => name,
        _ => name.to_owned(),
    };
    (!host.is_empty()).then(|| Exception::Names(format!(".{name}"), itself, port))
}

/// Host and port of `host:port` or `[ip]:port`.
fn with_port(entry: &str) -> Option<(&str, &str)> {
    match entry.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => entry.split_once(':').filter(|(_, port)| !port.contains(':')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(except: Option<&str>) -> Proxies {
        let proxy = || Some(Proxy::parse("http://me:canary%40@proxy:3128/x?y").expect("a proxy"));
        Proxies { http: proxy(), https: proxy(), except: except.map(NoProxy::parse), connect_headers: Vec::new() }
    }

    #[test]
    fn who_is_asked_without_a_proxy() {
        for (except, url, direct) in [
            (None, "http://localhost/", false),
            (None, "http://127.0.0.1/", false),
            (Some(""), "http://localhost/", true),
            (Some("x"), "https://127.8.0.1:9/", true),
            (Some("x"), "http://[::1]/", true),
            (Some("x"), "http://a.example/", false),
            (Some("*"), "http://a.example/", true),
            (Some("*"), "http://10.0.0.1/", true),
            (Some("10.0.0.0/8, 192.168.0.1"), "http://10.1.2.3:9090/", true),
            (Some("10.0.0.0/8, 192.168.0.1"), "http://192.168.0.1/", true),
            (Some("10.0.0.0/8, 192.168.0.1"), "http://192.168.0.2/", false),
            (Some("10.0.0.1:9090"), "http://10.0.0.1:9090/", true),
            (Some("10.0.0.1:443"), "https://10.0.0.1/", true),
            (Some("10.0.0.1:9090"), "http://10.0.0.1/", false),
            (Some("[fd00::1]:80,fd00::2"), "http://[fd00::1]/", true),
            (Some("[fd00::1]:80,fd00::2"), "https://[fd00::2]/", true),
            (Some("Example"), "http://a.example/", true),
            (Some("example"), "http://example/", true),
            (Some("example"), "http://anexample/", false),
            (Some(".example"), "http://a.example/", true),
            (Some(".example"), "http://example/", false),
            (Some("*.example"), "http://example/", false),
            (Some("*.example"), "http://a.b.example/", true),
            (Some("a.example:8080"), "http://a.example/", false),
            (Some("a.example:8080"), "http://a.example:8080/", true),
            (Some("a.example:http,:80,,"), "http://a.example/", false),
            (Some("a.example:"), "http://a.example:8080/", true),
            (Some("x"), "http://[::ffff:127.0.0.1]/", true),
            (Some("10.0.0.0/8"), "http://[::ffff:10.1.2.3]/", true),
            (Some("bücher.example,.straße.example"), "http://bücher.example/", true),
            (Some("bücher.example,.straße.example"), "http://a.straße.example/", true),
            (Some("bücher.example,.straße.example"), "http://straße.example/", false),
        ] {
            let url = Url::parse(url).expect("a URL");
            assert_eq!(proxies(except).for_url(&url).is_none(), direct, "{except:?} {url}");
        }
    }

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        let proxies = proxies(None);
        let proxy = proxies.http.as_ref().expect("one");
        assert_eq!((proxy.to_string().as_str(), proxy.url().as_str()), ("http://proxy:3128", "http://proxy:3128/"));
        assert!(!format!("{proxies:?}").contains("canary"));
        assert_eq!(proxy.authorization().expect("a password"), "Basic bWU6Y2FuYXJ5QA==");
        let secrets: Vec<_> = proxy.secrets().iter().map(|secret| secret.expose().to_owned()).collect();
        assert_eq!(secrets, ["me:canary@", "canary@", "bWU6Y2FuYXJ5QA=="]);
        for text in ["https://proxy", "socks5://proxy", "proxy:3128", "http://pro\"xy", "http:", ""] {
            assert!(Proxy::parse(text).is_err(), "{text}");
        }
    }
}
