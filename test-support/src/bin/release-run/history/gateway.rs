//! A watch of the whole key space over etcd's JSON gateway: one answer a line.

use std::{net::SocketAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use discovery_test_support::slack;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request,
    body::{Bytes, Incoming},
    client::conn::http1::handshake,
    header,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use super::Event;

/// For the connection and the first answer.
const OPENING: Duration = Duration::from_secs(2);

/// What one answer says: the changes, each with its revision.
pub(super) type Answer = Vec<(i64, Event)>;

pub(super) struct Watch {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Watch {
    /// Opens a watch at the member from `revision` on.
    pub(super) async fn open(server: SocketAddr, revision: i64) -> Result<Self, String> {
        timeout(slack(OPENING), Self::connect(server, revision))
            .await
            .map_err(|_| "no answer".to_owned())?
    }

    async fn connect(server: SocketAddr, revision: i64) -> Result<Self, String> {
        let stream = TcpStream::connect(server).await.map_err(|error| error.to_string())?;
        let (mut sender, driver) =
            handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(driver);
        // From NUL to NUL is everything.
        let all = STANDARD.encode([0]);
        let query = json!({ "create_request":
            { "key": all, "range_end": all, "start_revision": revision.to_string() } });
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v3/watch")
            .header(header::HOST, server.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(query.to_string())))
            .map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(response.status().to_string());
        }
        Ok(Self { body: response.into_body(), buffer: Vec::new() })
    }

    /// The next answer. Cancel safe. Any error ends the watch.
    pub(super) async fn next(&mut self) -> Result<Answer, String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.buffer.drain(..=end).collect();
                return answer(&line);
            }
            match self.body.frame().await {
                None => return Err("the watch ended".to_owned()),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

fn answer(line: &[u8]) -> Result<Answer, String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let result = &value["result"];
    if !result.is_object() || result["canceled"] == json!(true) {
        return Err(format!("etcd ended the watch: {value}"));
    }
    let events = result["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().map(event).collect()
}

fn event(event: &Value) -> Result<(i64, Event), String> {
    let kv = &event["kv"];
    let bytes = |name: &str| {
        STANDARD.decode(kv[name].as_str().unwrap_or_default()).map_err(|error| error.to_string())
    };
    let number = |name: &str| kv[name].as_str().and_then(|text| text.parse::<i64>().ok());
    let revision = number("mod_revision").ok_or_else(|| format!("no revision in {event}"))?;
    let deleted = event["type"] == "DELETE";
    let value = if deleted { None } else { Some(bytes("value")?) };
    Ok((revision, Event { key: bytes("key")?, value }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_etcd_writes_it() {
        let line = br#"{"result":{"header":{"revision":"9"},"events":[
            {"kv":{"key":"YQ==","mod_revision":"8","value":"MQ==","lease":"7"}},
            {"type":"DELETE","kv":{"key":"Yg==","mod_revision":"9"}}]}}"#;
        let answer = answer(line).unwrap();
        assert_eq!((answer[0].0, answer[1].0), (8, 9));
        assert_eq!(&answer[0].1.key[..], b"a");
        assert_eq!(answer[0].1.value.as_deref(), Some(&b"1"[..]));
        assert_eq!((&answer[1].1.key[..], &answer[1].1.value), (&b"b"[..], &None));
    }

    #[test]
    fn a_watch_that_etcd_ends_is_an_error() {
        assert!(answer(br#"{"result":{"canceled":true,"compact_revision":"5"}}"#).is_err());
        assert!(answer(br#"{"error":{"code":14}}"#).is_err());
        assert!(answer(br#"{"result":{"created":true}}"#).unwrap().is_empty());
    }
}
