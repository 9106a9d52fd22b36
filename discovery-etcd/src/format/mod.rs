//! How instances stand in etcd's keys and values, behind a trait: what other tools write can be read,
//! and what is registered can be read by them.
//!
//! [`Native`] is the default and says all that an [`Instance`] has. [`Heartbeat`] is small and says an
//! address only. [`Format`] shows how to write another.

mod error;
mod heartbeat;
mod name;
mod native;
#[cfg(test)]
pub(crate) mod other_tests;

use std::fmt::Debug;

use discovery_core::{Instance, ServiceName};

pub(crate) use error::escaped;
pub use error::{Undecodable, Unencodable};
pub use heartbeat::Heartbeat;
pub use name::FormatName;
pub use native::Native;

/// Translates between etcd's keys and values and instances.
///
/// What etcd holds is made of *records*. Most often a key with its value is a record by itself; in
/// some formats several keys make one. A record stands for any number of instances. A delete in etcd
/// carries no value, so what a record stood for is remembered by whoever watches; a format has no
/// state and is asked about what is there.
///
/// The law: an instance (service and id) belongs to one record. Of an instance that two records claim
/// the last one read counts, and it is gone with the first of them.
///
/// No key and no value may make a format panic: what is in a registry can be anything.
///
/// # Example
/// Keys `hosts/SERVICE/HOST:PORT` with a weight as their value, or with none:
///
/// ```
/// use std::sync::Arc;
///
/// use discovery_core::{Address, Instance, ServiceName, Weight};
/// use discovery_etcd::format::{
///     Decoded, Encoded, Entry, Format, Record, Undecodable, Unencodable,
/// };
/// use discovery_etcd::{EtcdConfig, EtcdRegistry};
///
/// #[derive(Debug)]
/// struct Hosts;
///
/// impl Format for Hosts {
///     fn prefix(&self, service: Option<&ServiceName>) -> Vec<u8> {
///         match service {
///             None => b"hosts/".to_vec(),
///             Some(service) => format!("hosts/{service}/").into_bytes(),
///         }
///     }
///
///     fn record<'k>(&self, key: &'k [u8]) -> Result<Record<'k>, Undecodable> {
///         parts(key).map(|_| Record::Whole)
///     }
///
///     fn decode(&self, entries: &[Entry<'_>]) -> Result<Decoded, Undecodable> {
///         let [entry] = entries else { return Ok(Decoded::none()) };
///         let (service, host) = parts(entry.key)?;
///         let mut instance = Instance::parse(service, host, host)?;
///         let weight = std::str::from_utf8(entry.value).map_err(Undecodable::value)?;
///         if !weight.is_empty() {
///             instance.weight = weight.parse()?;
///         }
///         Ok(Decoded::one(instance))
///     }
///
///     fn encode(&self, instance: &Instance) -> Result<Encoded, Unencodable> {
///         let host = instance.address.authority();
///         if instance.address.scheme() != "http" {
///             return Err(Unencodable::new("address", &instance.address, "must be http here"));
///         }
///         let key = format!("hosts/{}/{host}", instance.service).into_bytes();
///         Ok(Encoded { key, value: Some(instance.weight.to_string().into_bytes()) })
///     }
/// }
///
/// fn parts(key: &[u8]) -> Result<(&str, &str), Undecodable> {
///     let key = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix("hosts/"));
///     key.and_then(|key| key.split_once('/')).ok_or(Undecodable::key("hosts/SERVICE/HOST:PORT"))
/// }
///
/// let seven = Instance::parse("orders", "10.0.0.7:80", "http://10.0.0.7:80")?;
/// let Encoded { key, value } = Hosts.encode(&seven)?;
/// assert_eq!(key, b"hosts/orders/10.0.0.7:80");
/// let value = value.unwrap();
/// let decoded = Hosts.decode(&[Entry { key: &key, value: &value }])?;
/// assert_eq!(decoded.instances().collect::<Vec<_>>(), [&seven]);
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # let _guard = runtime.enter();
/// let config = EtcdConfig::new(["http://127.0.0.1:2379"]);
/// let registry = EtcdRegistry::with_format(config, Arc::new(Hosts))?;
/// # drop(registry);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Format: Debug + Send + Sync + 'static {
    /// What the keys of all services start with, or those of one service. It may cover other
    /// services' keys, too: their instances are left out by whoever asked for one service.
    fn prefix(&self, service: Option<&ServiceName>) -> Vec<u8>;

    /// What record a key belongs to, said by the key alone.
    ///
    /// # Errors
    /// [`Undecodable`] if it is no key of this format; that is reported once.
    fn record<'k>(&self, key: &'k [u8]) -> Result<Record<'k>, Undecodable>;

    /// The instances that a record stands for: `entries` is the one key of a [`Record::Whole`], or all
    /// keys of a [`Record::Part`] that are there, at least one, sorted by key.
    ///
    /// # Errors
    /// [`Undecodable`] if it cannot be read; that is reported once, and what the record stood for
    /// before stays.
    fn decode(&self, entries: &[Entry<'_>]) -> Result<Decoded, Undecodable>;

    /// The key of an instance, and its value. Where a format cannot say all that an instance has, the
    /// rest is left out.
    ///
    /// # Errors
    /// [`Unencodable`] if this format can never hold such an instance.
    fn encode(&self, instance: &Instance) -> Result<Encoded, Unencodable>;
}

/// What a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record<'k> {
    /// The key is a record by itself.
    Whole,
    /// The key is one of several that are decoded together; this is the record's name, the same for
    /// all of them and no other's. It may be a part of the key, as it most often is.
    Part(&'k [u8]),
    /// The key says nothing (a marker, say) and is passed over in silence.
    Nothing,
}

/// A key and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

/// What a record stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Nearly always the only one, so it needs no list.
    first: Option<Instance>,
    rest: Vec<Instance>,
    differs: bool,
}

impl Decoded {
    /// The record is in order and stands for nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// The record stands for this instance.
    pub fn one(instance: Instance) -> Self {
        Self { first: Some(instance), ..Self::default() }
    }

    /// The value names another service or id than the key, which counts. It is logged once.
    #[must_use]
    pub fn differing(mut self, differs: bool) -> Self {
        self.differs = differs;
        self
    }

    /// Whether the value names another service or id than the key.
    pub fn differs(&self) -> bool {
        self.differs
    }

    /// The instances.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.first.iter().chain(&self.rest)
    }

    /// The instances.
    pub fn into_instances(self) -> impl Iterator<Item = Instance> {
        self.first.into_iter().chain(self.rest)
    }
}

impl FromIterator<Instance> for Decoded {
    fn from_iter<I: IntoIterator<Item = Instance>>(instances: I) -> Self {
        let mut instances = instances.into_iter();
        Self { first: instances.next(), rest: instances.collect(), differs: false }
    }
}

/// An instance as it stands in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Its key. It must not depend on what may change while an instance is registered; an update by
    /// which it would is refused.
    pub key: Vec<u8>,
    /// Its value; `None` if in this format an instance that is as this one is not listed. (One that
    /// drains is not, where a format cannot say so.)
    pub value: Option<Vec<u8>>,
}
