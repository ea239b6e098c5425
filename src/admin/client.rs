//! The other end of the API: what `upsplice sessions` and its like ask a running gateway.

use std::fmt;
use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::{Listen, Reach};

/// How long a gateway may take to accept, and to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than any whole answer has.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer, or not the one that was wanted.
#[derive(Debug)]
pub enum Failed {
    /// Nobody answers there.
    NoGateway {
        /// Where.
        address: String,
        /// What the kernel or the connection said.
        why: String,
    },
    /// There is no such session or route.
    NotFound(String),
    /// The gateway refuses, or cannot.
    Refused(String),
}

/// A way to a running gateway.
#[derive(Debug)]
pub struct Client {
    reach: Reach,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// No descriptors for a runtime.
    pub fn new(reach: Reach) -> io::Result<Client> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        Ok(Client { reach, runtime })
    }

    /// The answer to a GET.
    ///
    /// # Errors
    ///
    /// See [`Failed`].
    pub fn get(&self, target: &str) -> Result<Value, Failed> {
        self.runtime.block_on(self.whole(Method::GET, target))
    }

    /// The answer to a GET of what is no JSON.
    ///
    /// # Errors
    ///
    /// See [`Failed`].
    pub fn text(&self, target: &str) -> Result<String, Failed> {
        let (status, body) = self.runtime.block_on(self.bytes(Method::GET, target))?;
        if !status.is_success() {
            self.judge_bytes(status, &body)?;
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// What `/livez` or `/readyz` says: a gateway that is not ready has answered, too.
    ///
    /// # Errors
    ///
    /// See [`Failed`].
    pub fn health(&self, target: &str) -> Result<Value, Failed> {
        let (status, body) = self.runtime.block_on(self.bytes(Method::GET, target))?;
        match status {
            StatusCode::SERVICE_UNAVAILABLE => self.judge_bytes(StatusCode::OK, &body),
            status => self.judge_bytes(status, &body),
        }
    }

    /// The answer to a POST without a body.
    ///
    /// # Errors
    ///
    /// See [`Failed`].
    pub fn post(&self, target: &str) -> Result<Value, Failed> {
        self.runtime.block_on(self.whole(Method::POST, target))
    }

    /// The answer to a DELETE.
    ///
    /// # Errors
    ///
    /// See [`Failed`].
    pub fn delete(&self, target: &str) -> Result<Value, Failed> {
        self.runtime.block_on(self.whole(Method::DELETE, target))
    }

    /// Hands every line of a stream to `each`, until it ends or `each` wants no more.
    ///
    /// # Errors
    ///
    /// See [`Failed`]; also when the stream breaks off.
    pub fn lines(&self, target: &str, each: impl FnMut(&str) -> bool) -> Result<(), Failed> {
        self.runtime.block_on(self.stream(target, each))
    }

    async fn stream(&self, target: &str, mut each: impl FnMut(&str) -> bool) -> Result<(), Failed> {
        let response = timeout(PATIENCE, self.send(Method::GET, target));
        let response = response.await.unwrap_or_else(|_| Err(self.nobody("no answer in time")))?;
        if !response.status().is_success() {
            return self.read_whole(response).await.map(|_| ());
        }
        let (mut body, mut held) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.nobody(error))?;
            held.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
            while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = held.drain(..=end).collect();
                if !each(String::from_utf8_lossy(&line[..end]).as_ref()) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn whole(&self, method: Method, target: &str) -> Result<Value, Failed> {
        let (status, body) = self.bytes(method, target).await?;
        self.judge_bytes(status, &body)
    }

    async fn bytes(&self, method: Method, target: &str) -> Result<(StatusCode, Bytes), Failed> {
        let response = timeout(PATIENCE, self.send(method, target));
        let response = response.await.unwrap_or_else(|_| Err(self.nobody("no answer in time")))?;
        self.read_bytes(response).await
    }

    async fn read_whole(&self, response: Response<Incoming>) -> Result<Value, Failed> {
        let (status, body) = self.read_bytes(response).await?;
        self.judge_bytes(status, &body)
    }

    async fn read_bytes(
        &self,
        response: Response<Incoming>,
    ) -> Result<(StatusCode, Bytes), Failed> {
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect();
        let body = timeout(PATIENCE, body).await.map_err(|_| self.nobody("no end in time"))?;
        Ok((status, body.map_err(|error| self.nobody(error))?.to_bytes()))
    }

    fn judge_bytes(&self, status: StatusCode, body: &[u8]) -> Result<Value, Failed> {
        let value = serde_json::from_slice(body).map_err(|_| {
            self.nobody(format_args!("somebody else answers there, {status} and no JSON"))
        })?;
        judge(status, value)
    }

    async fn send(&self, method: Method, target: &str) -> Result<Response<Incoming>, Failed> {
        match &self.reach.address {
            Listen::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| self.nobody(error))?;
                self.send_over(TokioIo::new(stream), method, target).await
            }
            Listen::Tcp(address) => {
                let stream = TcpStream::connect(address).await;
                let stream = stream.map_err(|error| self.nobody(error))?;
                self.send_over(TokioIo::new(stream), method, target).await
            }
        }
    }

    async fn send_over<S>(
        &self,
        stream: S,
        method: Method,
        target: &str,
    ) -> Result<Response<Incoming>, Failed>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            http1::handshake(stream).await.map_err(|error| self.nobody(error))?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(target).header(HOST, "upsplice");
        if let Some(token) = &self.reach.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.secret()));
        }
        let request = request.body(Empty::<Bytes>::new());
        let request = request.map_err(|error| Failed::Refused(error.to_string()))?;
        sender.send_request(request).await.map_err(|error| self.nobody(error))
    }

    fn nobody(&self, why: impl fmt::Display) -> Failed {
        let address = match &self.reach.address {
            Listen::Tcp(address) => address.to_string(),
            Listen::Unix(path) => format!("unix:{}", path.display()),
        };
        Failed::NoGateway { address, why: why.to_string() }
    }
}

fn judge(status: StatusCode, value: Value) -> Result<Value, Failed> {
    if status.is_success() {
        return Ok(value);
    }
    let said = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let mut text = format!("{}: {}", said("error"), said("hint"));
    for fault in value["faults"].as_array().into_iter().flatten() {
        text.push('\n');
        text.push_str(fault.as_str().unwrap_or_default());
    }
    match status {
        StatusCode::NOT_FOUND => Err(Failed::NotFound(text)),
        _ => Err(Failed::Refused(text)),
    }
}

/// `path` with these parameters.
pub fn target(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    match query.finish() {
        query if query.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::NoGateway { address, why } => {
                write!(f, "no gateway answers at {address}: {why}; is it running with --admin?")
            }
            Failed::NotFound(text) | Failed::Refused(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_encoded_and_absent_ones_left_out() {
        let some = |text: &str| Some(text.to_owned());
        let parameters =
            [("client", some("10.0.0.0/8")), ("mode", None), ("endpoint", some("a b&c"))];
        assert_eq!(target("/x", &parameters), "/x?client=10.0.0.0%2F8&endpoint=a+b%26c");
        assert_eq!(target("/x", &[("mode", None)]), "/x");
    }
}
