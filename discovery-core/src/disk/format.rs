//! What stands in a file: one line that says how long the rest is and what its sum is, and the set as
//! JSON. Every bit counts: a file that is not exactly what was written is not read in part.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Instance, InstanceKey, ServiceName};

const MAGIC: &str = "discovery last good set, version ";
const VERSION: u32 = 1;

/// How far ahead of our clock another one's may be.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(60);

/// Longest part of a file that a reason not to use it quotes, in characters.
const SHOWN: usize = 200;

/// What a file is about.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) source: String,
    /// `None`: all services.
    pub(super) service: Option<ServiceName>,
}

/// A set that was read.
#[derive(Debug, PartialEq)]
pub(super) struct Saved {
    pub(super) set: HashMap<InstanceKey, Instance>,
    pub(super) at: SystemTime,
    /// How long before it was read.
    pub(super) age: Duration,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    #[error("it is not a file")]
    NotAFile,
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    #[error("it is not a last good set")]
    NotOurs,
    #[error("it is of version {theirs:?}, and only version {VERSION} is known")]
    Version { theirs: String },
    #[error("it is damaged: its length or sum is not as it was written")]
    Damaged,
    #[error("it is not understood: {0}")]
    Body(String),
    #[error("it is of the source {theirs:?}, not of {ours:?}")]
    OtherSource { theirs: String, ours: String },
    #[error("it is of {theirs}, not of {ours}")]
    OtherService { theirs: String, ours: String },
    #[error("it was saved {0} s in the future")]
    Future(u64),
    #[error("it was saved {age} s ago, which is more than {limit} s")]
    TooOld { age: u64, limit: u64 },
}

#[derive(Serialize, Deserialize)]
struct Body<'a, I> {
    source: Cow<'a, str>,
    service: Option<Cow<'a, ServiceName>>,
    /// Unix time, in seconds.
    saved: u64,
    instances: Vec<I>,
}

/// The bytes of a file.
pub(super) fn encode<I: AsRef<Instance>>(
    subject: &Subject,
    instances: &[I],
    at: SystemTime,
) -> io::Result<Vec<u8>> {
    let body = Body {
        source: Cow::Borrowed(&subject.source),
        service: subject.service.as_ref().map(Cow::Borrowed),
        saved: at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        instances: instances.iter().map(AsRef::as_ref).collect::<Vec<&Instance>>(),
    };
    let body = serde_json::to_vec(&body)?;
    let mut bytes = head(&body).into_bytes();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The set in a file, if it is good and no older than `max_age`.
pub(super) fn decode(
    bytes: &[u8],
    subject: &Subject,
    now: SystemTime,
    max_age: Duration,
) -> Result<Saved, Unusable> {
    let body: Body<'_, Instance> = serde_json::from_slice(intact(bytes)?)
        .map_err(|error| Unusable::Body(error.to_string().escape_debug().take(SHOWN).collect()))?;
    if body.source != subject.source {
        let (theirs, ours) = (body.source.chars().take(SHOWN).collect(), subject.source.clone());
        return Err(Unusable::OtherSource { theirs, ours });
    }
    let service = body.service.as_deref();
    let stranger = subject
        .service
        .as_ref()
        .and_then(|ours| body.instances.iter().find(|instance| instance.service != *ours))
        .map(|instance| &instance.service);
    if service != subject.service.as_ref() || stranger.is_some() {
        let named = |service: Option<&ServiceName>| {
            service.map_or("all services".to_owned(), |name| format!("the service {name}"))
        };
        let (theirs, ours) = (named(stranger.or(service)), named(subject.service.as_ref()));
        return Err(Unusable::OtherService { theirs, ours });
    }
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(body.saved));
    let at = at.ok_or(Unusable::Future(body.saved))?;
    let age = match now.duration_since(at) {
        Ok(age) => age,
        Err(ahead) if ahead.duration() <= CLOCKS_DIFFER_BY => Duration::ZERO,
        Err(ahead) => return Err(Unusable::Future(ahead.duration().as_secs())),
    };
    if age > max_age {
        return Err(Unusable::TooOld { age: age.as_secs(), limit: max_age.as_secs() });
    }
    let set = body.instances.into_iter().map(|instance| (instance.key(), instance)).collect();
    Ok(Saved { set, at, age })
}

/// The body, if all of the file is as it was written.
fn intact(bytes: &[u8]) -> Result<&[u8], Unusable> {
    let Some(rest) = bytes.strip_prefix(MAGIC.as_bytes()) else {
        return Err(Unusable::NotOurs);
    };
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(Unusable::Damaged)?;
    let (line, body) = bytes.split_at(end + 1);
    // Compared as text: a number could be written in other ways.
    if line == head(body).as_bytes() {
        return Ok(body);
    }
    let digits = rest.iter().take(10).take_while(|byte| byte.is_ascii_digit());
    let theirs: String = digits.map(|byte| char::from(*byte)).collect();
    if theirs.is_empty() || theirs == VERSION.to_string() {
        return Err(Unusable::Damaged);
    }
    Err(Unusable::Version { theirs })
}

pub(super) fn head(body: &[u8]) -> String {
    format!("{MAGIC}{VERSION}, {} bytes, sum {:016x}\n", body.len(), sum(body))
}

/// FNV-1a with 64 bits. It tells every change of a single byte, since each of its steps can
/// be taken back; it is against accidents, not against forgery.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn orders() -> Subject {
        Subject { source: "here".into(), service: Some("orders".parse().unwrap()) }
    }

    fn set() -> Vec<Arc<Instance>> {
        let mut first = Instance::parse("orders", "1", "http://10.0.0.1:80").unwrap();
        first.metadata.insert("a".into(), "ä\n\0".into());
        first.zone = Some("z".parse().unwrap());
        let second = Instance::parse("orders", "2", "unix:///run/2.sock").unwrap();
        vec![first.into(), second.into()]
    }

    fn good() -> Vec<u8> {
        encode(&orders(), &set(), now() - Duration::from_secs(60)).unwrap()
    }

    fn refused(bytes: &[u8], subject: &Subject) -> String {
        decode(bytes, subject, now(), DAY).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_can_be_read() {
        let saved = decode(&good(), &orders(), now(), DAY).unwrap();
        let set = set().into_iter().map(|instance| (instance.key(), (*instance).clone()));
        assert_eq!(saved.set, set.collect());
        assert_eq!((saved.age.as_secs(), saved.at), (60, now() - Duration::from_secs(60)));
        let all = Subject { service: None, ..orders() };
        let none = encode(&all, &Vec::<Arc<Instance>>::new(), now()).unwrap();
        assert_eq!(decode(&none, &all, now(), DAY).unwrap().set.len(), 0);
    }

    #[test]
    fn a_suspect_is_saved_as_the_instance_it_was() {
        let mut suspect = (*set()[0]).clone();
        suspect.suspect = true;
        let bytes = encode(&orders(), &[Arc::new(suspect)], now()).unwrap();
        let saved = decode(&bytes, &orders(), now(), DAY).unwrap();
        assert_eq!(saved.set.into_values().collect::<Vec<_>>(), [(*set()[0]).clone()]);
    }

    #[test]
    fn a_file_cut_off_anywhere_is_refused() {
        let good = good();
        for end in 0..good.len() {
            assert!(decode(&good[..end], &orders(), now(), DAY).is_err(), "cut off at {end}");
        }
        assert!(refused(&good[..good.len() - 1], &orders()).contains("damaged"));
        assert!(refused(&[good, vec![b' ']].concat(), &orders()).contains("damaged"));
    }

    #[test]
    fn a_file_with_one_bit_flipped_is_refused() {
        let good = good();
        for place in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[place] ^= 1 << bit;
                let read = decode(&bad, &orders(), now(), DAY);
                assert!(read.is_err(), "bit {bit} of byte {place}: {read:?}");
            }
        }
    }

    #[test]
    fn what_was_never_a_set_is_refused() {
        for bad in [&b""[..], b"\n", b"{}", &[0; 4096], &[0xff; 100], MAGIC.as_bytes()] {
            decode(bad, &orders(), now(), DAY).unwrap_err();
        }
        assert!(refused(&[0; 4096], &orders()).contains("not a last good set"));
        // As it would be from a later version of this program.
        let later = String::from_utf8(good()).unwrap().replace("version 1,", "version 12,");
        assert!(refused(later.as_bytes(), &orders()).contains("version \"12\""));
        // As a program would write it that takes other addresses for good.
        let body = r#"{"source":"here","service":"orders","saved":1799999999,"instances":[
            {"id":"1","name":"orders","address":"a:1"},{"id":"2","name":"orders","address":"a b"}]}"#;
        let bytes = [head(body.as_bytes()).as_bytes(), body.as_bytes()].concat();
        assert!(refused(&bytes, &orders()).contains("address"));
    }

    #[test]
    fn a_reason_quotes_little_of_a_file_and_is_one_line() {
        let long = "x\\n".repeat(1000);
        let status = format!(
            r#"{{"source":"here","service":"orders","saved":1799999999,"instances":[
            {{"id":"1","name":"orders","address":"a:1","status":"{long}"}}]}}"#
        );
        let source = format!(r#"{{"source":"{long}","saved":1799999999,"instances":[]}}"#);
        for body in [status, source] {
            let reason = refused(&[head(body.as_bytes()), body].concat().into_bytes(), &orders());
            assert!(reason.contains(r"x\nx\n") && !reason.contains('\n'), "{reason}");
            assert!(reason.len() < 500, "{}", reason.len());
        }
    }

    #[test]
    fn a_set_of_another_source_or_service_is_refused() {
        let other = |source: &str, service: Option<&str>| {
            let service = service.map(|name| name.parse().unwrap());
            refused(&good(), &Subject { source: source.into(), service })
        };
        let text = other("there", Some("orders"));
        assert!(text.contains("\"here\"") && text.contains("\"there\""), "{text}");
        let text = other("here", Some("order"));
        assert!(text.contains("service orders, not of the service order"), "{text}");
        assert!(other("here", None).contains("not of all services"));
        // All of it is good but for one instance, which is of another service.
        let users = Subject { service: Some("users".parse().unwrap()), ..orders() };
        let mixed = encode(&users, &set(), now()).unwrap();
        assert!(refused(&mixed, &users).contains("service orders"));
    }

    #[test]
    fn only_a_set_of_the_right_age_is_taken() {
        let at = |seconds: i64| {
            let offset = Duration::from_secs(seconds.unsigned_abs());
            let at = if seconds < 0 { now() - offset } else { now() + offset };
            decode(&encode(&orders(), &set(), at).unwrap(), &orders(), now(), DAY)
        };
        let day = i64::try_from(DAY.as_secs()).unwrap();
        assert_eq!(at(-day).unwrap().age, DAY);
        assert!(at(-day - 1).unwrap_err().to_string().contains("more than 86400 s"));
        assert_eq!(at(60).unwrap().age, Duration::ZERO);
        assert!(at(61).unwrap_err().to_string().contains("61 s in the future"));
        let body =
            r#"{"source":"here","service":"orders","saved":18446744073709551615,"instances":[]}"#;
        let bytes = [head(body.as_bytes()).as_bytes(), body.as_bytes()].concat();
        assert!(refused(&bytes, &orders()).contains("in the future"));
    }
}
