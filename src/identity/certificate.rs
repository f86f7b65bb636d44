//! What a certificate says, in plain values: for reports, the status page, and the judgement of our own files.
//!
//! Reading is not believing: nothing here checks a signature. Text from the certificate is cleaned.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::model::clean;

/// The SHA-256 of a certificate's DER bytes; two files hold the same certificate exactly if these agree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of one certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate.as_ref()).into())
    }
}

/// Upper-case hexadecimal pairs with colons, as openssl prints them.
impl fmt::Display for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(out, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// The SHA-256 of a certificate's public key, with its algorithm (`SubjectPublicKeyInfo` in DER).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key of one certificate; the error says why it cannot be read.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        Ok(Self(Sha256::digest(parse(certificate)?.public_key().raw).into()))
    }
}

/// The contents of one certificate that people and policies ask for. The texts are safe to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The SHA-256 of the whole certificate.
    pub fingerprint: Fingerprint,
    /// The serial number, hexadecimal pairs with colons.
    pub serial: String,
    /// The subject; Istio leaves it empty in workload certificates.
    pub subject: String,
    /// The issuer.
    pub issuer: String,
    /// The URI names, as many as can be decoded.
    pub uris: Vec<String>,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid, this second included.
    pub not_after: SystemTime,
    /// Whether it says of itself that it is a CA.
    pub is_ca: bool,
}

impl CertificateFacts {
    /// Reads a certificate; the error says what is wrong with it.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let parsed = parse(certificate)?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let uris = names.iter().flat_map(|san| &san.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => Some(clean(uri).into_owned()),
            _ => None,
        });
        Ok(Self {
            fingerprint: Fingerprint::of(certificate),
            serial: clean(&parsed.raw_serial_as_string()).into_owned(),
            subject: clean(&parsed.subject().to_string()).into_owned(),
            issuer: clean(&parsed.issuer().to_string()).into_owned(),
            uris: uris.collect(),
            not_before: system_time(parsed.validity().not_before),
            not_after: system_time(parsed.validity().not_after),
            is_ca: parsed.is_ca(),
        })
    }

    /// Whether `now` lies within its validity, both ends included.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < end_of(self.not_after)
    }

    /// Whether its validity has ended by `now`.
    pub fn is_expired_at(&self, now: SystemTime) -> bool {
        now >= end_of(self.not_after)
    }

    /// From when on its renewal is overdue: a quarter of its life is left then, while Istio renews at half of it and
    /// csi-driver-spiffe at two thirds.
    pub fn overdue_after(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_after - life / 4
    }

    /// Its validity at `now`, in words: `expires in 11h (2026-11-22T10:00:00Z)`.
    pub fn validity_at(&self, now: SystemTime) -> String {
        let (from, until) = (utc(self.not_before), utc(self.not_after));
        if let Ok(wait) = self.not_before.duration_since(now)
            && !wait.is_zero()
        {
            return format!("not valid before {from}, in {}", in_words(wait));
        }
        match end_of(self.not_after).duration_since(now) {
            Ok(left) if !left.is_zero() => format!("expires in {} ({until})", in_words(left)),
            _ => {
                let past = now.duration_since(self.not_after).unwrap_or_default();
                format!("expired {} ago ({until})", in_words(past))
            }
        }
    }

    /// What to call it: its first URI, else its subject.
    pub fn name(&self) -> &str {
        match self.uris.first() {
            Some(uri) => uri,
            None if self.subject.is_empty() => "(no name)",
            None => &self.subject,
        }
    }
}

/// One line: name, issuer, validity.
impl fmt::Display for CertificateFacts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let issuer = if self.issuer.is_empty() { "(no name)" } else { &self.issuer };
        let (from, until) = (utc(self.not_before), utc(self.not_after));
        write!(out, "{}, issued by {issuer}, valid {from} to {until}", self.name())
    }
}

/// Parses the whole of a certificate; bytes after its end are an error.
pub(super) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(certificate.as_ref()) {
        Ok(([], parsed)) => Ok(parsed),
        Ok((rest, _)) => Err(format!("{} bytes follow after the certificate", rest.len())),
        Err(error) => Err(clean(&error.to_string()).into_owned()),
    }
}

/// The time of a certificate's validity as wall time.
pub(super) fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
}

/// The first instant after a validity: X.509 counts whole seconds, the last one included (RFC 5280, 4.1.2.5).
pub(super) fn end_of(not_after: SystemTime) -> SystemTime {
    not_after + Duration::from_secs(1)
}

/// The largest unit that has two of itself, rounded down: `11h`, `90s`, `364d`.
fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("y", 365 * 86_400), ("d", 86_400), ("h", 3_600), ("m", 60)];
    match units.iter().find(|(_, unit)| seconds >= 2 * unit) {
        Some((name, unit)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// `2026-11-22T10:00:00Z`, for people.
pub(super) fn utc(time: SystemTime) -> String {
    let seconds = crate::clock::unix_ms(time).div_euclid(1000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01: the leap day is then the last of its year, and months have closed-form lengths.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_people() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), shown);
        }
        assert_eq!(utc(UNIX_EPOCH - Duration::from_secs(1)), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn durations_for_people() {
        for (seconds, shown) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7_199, "119m"),
            (11 * 3_600 + 3_599, "11h"),
            (2 * 86_400, "2d"),
            (729 * 86_400, "729d"),
            (10 * 365 * 86_400, "10y"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn validity_in_words() {
        let second = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let facts = CertificateFacts {
            fingerprint: Fingerprint([0; 32]),
            serial: String::new(),
            subject: String::new(),
            issuer: String::new(),
            uris: Vec::new(),
            not_before: second(3_600),
            not_after: second(7_200),
            is_ca: false,
        };
        for (now, valid, shown) in [
            (0, false, "not valid before 1970-01-01T01:00:00Z, in 60m"),
            (3_599, false, "not valid before 1970-01-01T01:00:00Z, in 1s"),
            (3_600, true, "expires in 60m (1970-01-01T02:00:00Z)"),
            (7_200, true, "expires in 1s (1970-01-01T02:00:00Z)"),
            (7_201, false, "expired 1s ago (1970-01-01T02:00:00Z)"),
        ] {
            assert_eq!((facts.is_valid_at(second(now)), facts.validity_at(second(now))), (valid, shown.to_owned()));
        }
    }
}
