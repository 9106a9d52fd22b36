//! The option `--last-good`: a start while etcd is away serves what was there.

use std::path::Path;
use std::sync::Arc;

use discovery_core::Source;
use discovery_core::disk::{LastGood, LastGoodError, LastGoodOptions};

use crate::etcd::EtcdOptions;
use crate::fault::Fault;

/// `source`, which is what `etcd` names, with its last good sets kept in the directory, if one is
/// given.
///
/// # Errors
/// [`Fault::Usage`] names a directory that cannot be used.
pub fn kept(
    source: Arc<dyn Source>,
    directory: Option<&Path>,
    etcd: &EtcdOptions,
) -> Result<Arc<dyn Source>, Fault> {
    let Some(directory) = directory else { return Ok(source) };
    let options = LastGoodOptions::new(directory).source_name(name(etcd));
    match LastGood::new(source, options) {
        Ok(source) => Ok(Arc::new(source)),
        Err(LastGoodError::Directory { cause, .. }) => {
            Err(Fault::option("--last-good", directory.display(), cause))
        }
        Err(error) => Err(Fault::failed(error.to_string())),
    }
}

/// So that what was seen in one etcd, below one prefix or in one format is not served for another.
fn name(etcd: &EtcdOptions) -> String {
    let mut addresses: Vec<&str> = etcd.etcd.iter().map(String::as_str).collect();
    addresses.sort_unstable();
    let prefix = etcd.prefix.as_deref().filter(|_| etcd.format.has_prefix());
    let place = prefix.unwrap_or("/services").trim_end_matches('/');
    format!("etcd {} {} {place}", addresses.join(","), etcd.format)
}
