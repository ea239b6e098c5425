//! The admin API as a test asks it: one request per connection, by hand.

#![allow(dead_code, reason = "each test program uses its own part of the language")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::Value;
use upsplice::admin::Address;
use upsplice::server::Gateway;

use super::BOUND;

/// What was answered.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Where to ask, and what to bring along.
#[derive(Clone, Debug)]
pub struct Api {
    pub address: Address,
    pub token: Option<String>,
    /// Holds the socket file.
    folder: Option<std::sync::Arc<tempfile::TempDir>>,
}

/// A connection of either kind.
pub trait Wire: Read + Write + Send {}

impl<T: Read + Write + Send> Wire for T {}

/// A line for `[gateway]` that names a Unix socket in a folder of its own, and the way there.
pub fn unix() -> (String, Api) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run").join("admin.sock");
    let line = format!("admin = \"unix:{}\"", path.display());
    let folder = Some(std::sync::Arc::new(folder));
    (line, Api { address: Address::Unix(path), token: None, folder })
}

impl Api {
    pub fn of(gateway: &Gateway) -> Api {
        let address = gateway.admin_address().expect("it has an admin API").clone();
        Api { address, token: None, folder: None }
    }

    pub fn path(&self) -> PathBuf {
        match &self.address {
            Address::Unix(path) => path.clone(),
            Address::Tcp(address) => panic!("no path: {address}"),
        }
    }

    pub fn connect(&self) -> Box<dyn Wire> {
        match &self.address {
            Address::Unix(path) => {
                let socket = UnixStream::connect(path).expect("it accepts");
                socket.set_read_timeout(Some(BOUND)).expect("a bound");
                Box::new(socket)
            }
            Address::Tcp(address) => {
                let socket = TcpStream::connect(address).expect("it accepts");
                socket.set_read_timeout(Some(BOUND)).expect("a bound");
                Box::new(socket)
            }
        }
    }

    /// The head of a request.
    pub fn head(&self, method: &str, target: &str) -> String {
        let token = self.token.as_ref();
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let token = token.unwrap_or_default();
        format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{token}Connection: close\r\n\r\n")
    }

    pub fn ask(&self, method: &str, target: &str) -> Reply {
        self.send(&self.head(method, target))
    }

    /// Sends these bytes and reads to the end.
    pub fn send(&self, bytes: &str) -> Reply {
        let mut wire = self.connect();
        wire.write_all(bytes.as_bytes()).expect("sent");
        read_reply(&mut wire)
    }

    /// The answer to a GET, which has to be 200.
    pub fn get(&self, target: &str) -> Value {
        let reply = self.ask("GET", target);
        assert_eq!(reply.status, 200, "{target}: {reply:?}");
        reply.json()
    }

    /// All sessions that fit.
    pub fn sessions(&self, query: &str) -> Vec<Value> {
        let list = self.get(&format!("/v1/sessions?{query}"));
        list["sessions"].as_array().expect("a list").clone()
    }
}

/// Reads one answer to the end of its connection.
pub fn read_reply(wire: &mut impl Read) -> Reply {
    let mut text = Vec::new();
    match wire.read_to_end(&mut text) {
        Ok(_) => {}
        // What was refused before it was read to its end.
        Err(error) if error.kind() == ErrorKind::ConnectionReset && !text.is_empty() => {}
        Err(error) => panic!("no answer: {error}"),
    }
    let text = String::from_utf8(text).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    Reply {
        status: status.unwrap_or_else(|| panic!("no status: {head:?}")),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Fails unless this is a refusal that says what was wrong, and what to do.
    pub fn refused(&self, status: u16, error: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let json = self.json();
        let told = json["error"].as_str().unwrap_or_default();
        assert!(told.contains(error), "{error:?} is not said: {json}");
        assert!(!json["hint"].as_str().unwrap_or_default().is_empty(), "{json}");
    }
}
