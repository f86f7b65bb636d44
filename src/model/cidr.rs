//! A range of IP addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// `10.0.0.0/8`, `fd00::/8`: the addresses that begin with the same bits. Bits behind them are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    first: IpAddr,
    bits: u8,
}

/// Why a text is not a [`Cidr`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("an address and a number of bits, such as 10.0.0.0/8, is expected")]
pub struct CidrError;

impl Cidr {
    /// Whether `ip` lies in the range; an address of the other family never does.
    pub fn contains(&self, ip: IpAddr) -> bool {
        prefix(ip, self.bits) == Some(self.first)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (ip, bits) = text.split_once('/').ok_or(CidrError)?;
        if bits.is_empty() || !bits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(CidrError);
        }
        let (ip, bits): (IpAddr, u8) = (ip.parse().map_err(|_| CidrError)?, bits.parse().map_err(|_| CidrError)?);
        // `Ipv4Addr` or `Ipv6Addr` as it is written: nothing is mapped from one family to the other.
        prefix(ip, bits).map(|first| Self { first, bits }).ok_or(CidrError)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.first, self.bits)
    }
}

/// The address with all but its first `bits` bits cleared; `None` if it has not so many.
fn prefix(ip: IpAddr, bits: u8) -> Option<IpAddr> {
    Some(match ip {
        IpAddr::V4(ip) => {
            let behind = 32_u32.checked_sub(bits.into())?;
            IpAddr::V4((ip.to_bits() & u32::MAX.checked_shl(behind).unwrap_or(0)).into())
        }
        IpAddr::V6(ip) => {
            let behind = 128_u32.checked_sub(bits.into())?;
            IpAddr::V6((ip.to_bits() & u128::MAX.checked_shl(behind).unwrap_or(0)).into())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_lies_in_a_range_if_it_begins_alike() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("10.0.0.7/8", "10.0.0.0", "9.255.255.255"),
            ("127.0.0.1/32", "127.0.0.1", "127.0.0.2"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "ffff::", "1.2.3.4"),
        ] {
            let cidr: Cidr = range.parse().expect(range);
            assert!(cidr.contains(inside.parse().expect(inside)), "{inside} in {range}");
            assert!(!cidr.contains(outside.parse().expect(outside)), "{outside} in {range}");
        }
        assert_eq!("10.1.2.3/8".parse::<Cidr>().expect("valid").to_string(), "10.0.0.0/8");
    }

    #[test]
    fn everything_else_is_refused() {
        for bad in ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "::/129", "10/8", "x/8", "::/256"] {
            assert_eq!(bad.parse::<Cidr>(), Err(CidrError), "{bad}");
        }
    }
}
