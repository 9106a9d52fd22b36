//! The key with which etcd signs its JSON web tokens.

use std::{path::Path, time::Duration};

use crate::certificates::{new_key, replace_file};

#[derive(Debug, Clone)]
pub(super) struct Jwt {
    public: String,
    private: String,
    ttl: Duration,
}

impl Jwt {
    pub(super) fn new(ttl: Duration) -> Self {
        let key = new_key();
        Self { public: key.public_key_pem(), private: key.serialize_pem(), ttl }
    }

    /// Writes the keys into `dir` and says so to etcd.
    pub(super) fn flag(&self, dir: &Path) -> String {
        let (public, private) = (dir.join("jwt.pub"), dir.join("jwt.key"));
        replace_file(&public, &self.public);
        replace_file(&private, &self.private);
        format!(
            "--auth-token=jwt,pub-key={},priv-key={},sign-method=ES256,ttl={}s",
            public.display(),
            private.display(),
            self.ttl.as_secs()
        )
    }
}
