//! Users and roles: what the tests of denied and expired access need, and no more.

use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::{Result, Truth, TruthError, wire};

/// What a role may do with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Read and watch them.
    Read,
    /// Write and delete them.
    Write,
    /// Both.
    ReadWrite,
}

/// The users and roles of an etcd, from [`Truth::auth`].
#[derive(Debug)]
pub struct Auth<'a>(&'a Truth);

impl<'a> Auth<'a> {
    pub(super) const fn new(truth: &'a Truth) -> Self {
        Self(truth)
    }

    /// Makes the user `root` who may do everything, and asks every client for a login from now on.
    /// Returns a [`Truth`] that is logged in as that user.
    pub async fn enable(&self, root_password: &str) -> Result<Truth> {
        self.add_user("root", root_password).await?;
        self.add_role("root").await?;
        self.grant_role("root", "root").await?;
        self.switch_on().await?;
        Ok(self.0.login("root", root_password))
    }

    /// Asks every client for a login from now on. There must be a user `root` with the role `root`.
    pub async fn switch_on(&self) -> Result<()> {
        self.post("enable", json!({})).await
    }

    /// Asks nobody for a login any more. Only `root` may.
    pub async fn disable(&self) -> Result<()> {
        self.post("disable", json!({})).await
    }

    /// Adds a user without any role.
    pub async fn add_user(&self, user: &str, password: &str) -> Result<()> {
        self.post("user/add", json!({ "name": user, "password": password })).await
    }

    /// Removes a user.
    pub async fn remove_user(&self, user: &str) -> Result<()> {
        self.post("user/delete", json!({ "name": user })).await
    }

    /// Gives a user another password. Tokens of the old one stay good for their time.
    pub async fn change_password(&self, user: &str, password: &str) -> Result<()> {
        self.post("user/changepw", json!({ "name": user, "password": password })).await
    }

    /// Adds a role that may do nothing yet.
    pub async fn add_role(&self, role: &str) -> Result<()> {
        self.post("role/add", json!({ "name": role })).await
    }

    /// Removes a role from everybody who has it.
    pub async fn remove_role(&self, role: &str) -> Result<()> {
        self.post("role/delete", json!({ "role": role })).await
    }

    /// Lets a role read and write all keys that start with `prefix`.
    pub async fn allow(&self, role: &str, prefix: impl AsRef<[u8]>) -> Result<()> {
        self.permit(role, Permission::ReadWrite, prefix).await
    }

    /// Lets a role do this with all keys that start with `prefix`.
    pub async fn permit(
        &self,
        role: &str,
        permission: Permission,
        prefix: impl AsRef<[u8]>,
    ) -> Result<()> {
        let mut range = wire::range(prefix.as_ref());
        range["permType"] = json!(match permission {
            Permission::Read => "READ",
            Permission::Write => "WRITE",
            Permission::ReadWrite => "READWRITE",
        });
        self.post("role/grant", json!({ "name": role, "perm": range })).await
    }

    /// Takes back what [`Auth::allow`] gave.
    pub async fn forbid(&self, role: &str, prefix: impl AsRef<[u8]>) -> Result<()> {
        let mut query = wire::range(prefix.as_ref());
        query["role"] = json!(role);
        self.post("role/revoke", query).await
    }

    /// Gives a role to a user.
    pub async fn grant_role(&self, user: &str, role: &str) -> Result<()> {
        self.post("user/grant", json!({ "user": user, "role": role })).await
    }

    /// Takes a role from a user.
    pub async fn revoke_role(&self, user: &str, role: &str) -> Result<()> {
        self.post("user/revoke", json!({ "name": user, "role": role })).await
    }

    async fn post(&self, path: &str, query: serde_json::Value) -> Result<()> {
        self.0.post(&format!("/v3/auth/{path}"), query).await.map(drop)
    }
}

/// A user's login, and the token that it gave.
#[derive(Debug)]
pub(super) struct Session {
    user: String,
    password: String,
    token: Mutex<Option<String>>,
}

impl Session {
    pub(super) fn new(user: &str, password: &str) -> Self {
        Self { user: user.to_owned(), password: password.to_owned(), token: Mutex::default() }
    }

    /// The token there is, or a new one.
    pub(super) async fn token(&self, truth: &Truth) -> Result<String> {
        let known = self.lock().clone();
        if let Some(token) = known {
            return Ok(token);
        }
        let query = json!({ "name": self.user, "password": self.password });
        let answer = truth.post_as("/v3/auth/authenticate", &query, None).await?;
        let token = answer["token"].as_str().unwrap_or_default().to_owned();
        *self.lock() = Some(token.clone());
        Ok(token)
    }

    /// Forgets `token`, unless somebody has got another in the meantime.
    pub(super) fn forget(&self, token: &str) {
        self.lock().take_if(|known| known == token);
    }

    /// Whether etcd refused the token, as opposed to what was asked with it.
    pub(super) fn is_over(error: &TruthError) -> bool {
        matches!(error, TruthError::Refused { message, .. }
            if message.contains("invalid auth token") || message.contains("is old"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
