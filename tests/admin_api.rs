//! The OpenAPI file against the server: every place it names is there, nothing else is, and what is answered has the
//! shape that it says.

#[path = "support/joined.rs"]
mod joined;
mod support;

use joined::Joined;
use serde_json::Value;
use support::admin::{Api, Reply, unix};
use support::{Engine, Gw, Runtime};

const METHODS: [&str; 5] = ["get", "delete", "post", "put", "patch"];

/// The file as it is served.
struct File(Value);

impl File {
    fn served(api: &Api) -> File {
        File(api.get("/v1/openapi.json"))
    }

    fn paths(&self) -> Vec<&str> {
        self.0["paths"].as_object().expect("an object").keys().map(String::as_str).collect()
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').expect("a place in this file");
                self.0.pointer(pointer).unwrap_or_else(|| panic!("nothing at {reference}"))
            }
            None => value,
        }
    }

    /// The schema of an answer in JSON; `None` when it is in something else.
    fn schema(&self, path: &str, method: &str, status: u16) -> Option<&Value> {
        let response = &self.0["paths"][path][method]["responses"][status.to_string()];
        assert!(
            response.is_object(),
            "{method} {path} answers {status}, which the file does not say"
        );
        let content = &self.resolved(response)["content"];
        let schema = &content["application/json"]["schema"];
        let other = ["application/openmetrics-text", "application/x-ndjson", "text/html"];
        assert!(schema.is_object() || other.iter().any(|kind| content.get(*kind).is_some()));
        schema.is_object().then_some(schema)
    }

    /// Fails unless `value` has the shape of `schema`; `at` names it in the failure.
    fn check(&self, schema: &Value, value: &Value, at: &str) {
        let schema = self.resolved(schema);
        if value.is_null() {
            return assert_eq!(schema["nullable"], true, "{at} is null");
        }
        if let Some(allowed) = schema["enum"].as_array() {
            assert!(allowed.contains(value), "{at}: {value} is none of {allowed:?}");
        }
        let fits = match schema["type"].as_str().unwrap_or_else(|| panic!("{at}: {schema}")) {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64(),
            "number" => value.is_number(),
            other => panic!("{at}: {other}"),
        };
        assert!(fits, "{at}: {value} is no {}", schema["type"]);
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            self.check(&schema["items"], item, &format!("{at}[{index}]"));
        }
        let Some(fields) = value.as_object() else { return };
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().expect("a name");
            assert!(fields.contains_key(name), "{at}.{name} is missing");
        }
        for (name, field) in fields {
            let at = format!("{at}.{name}");
            match (&schema["properties"][name], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => panic!("{at} is not in the file"),
                (Value::Null, Value::Null) => {}
                (Value::Null, other) => self.check(other, field, &at),
                (property, _) => self.check(property, field, &at),
            }
        }
    }

    fn check_reply(&self, path: &str, method: &str, reply: &Reply) {
        if let Some(schema) = self.schema(path, method, reply.status) {
            self.check(schema, &reply.json(), &format!("{method} {path} {}", reply.status));
        }
    }
}

fn joined() -> (Joined, Api, String) {
    let (line, api) = unix();
    let joined = Joined::with(Engine::Copy, Runtime::Epoll, &line);
    let id = api.sessions("")[0]["id"].as_str().expect("an id").to_owned();
    (joined, api, id)
}

#[test]
fn every_place_of_the_file_is_there_and_knows_no_other_method() {
    let (joined, api, _) = joined();
    let file = File::served(&api);
    for path in file.paths() {
        for method in METHODS {
            let mut target = path.replace("{id}", "01ARZ3NDEKTSV4RRFFQ69G5FAV");
            if path == "/v1/drain" && method == "post" {
                // It is there, but this gateway is needed for a while.
                target += "?route=none";
            }
            let reply = api.ask(&method.to_ascii_uppercase(), &target);
            match file.0["paths"][path][method].is_object() {
                true => file.check_reply(path, method, &reply),
                false => assert_eq!(reply.status, 405, "{method} {path}: {reply:?}"),
            }
        }
    }
    joined.ended_any();
}

#[test]
fn answers_have_the_shape_that_the_file_says() {
    let (joined, api, id) = joined();
    let file = File::served(&api);
    let one = format!("/v1/sessions/{id}");
    let tap = "/v1/sessions/{id}/tap";
    let last = ("/v1/sessions/{id}", "delete", one.clone(), 202);
    for (path, method, target, status) in [
        ("/livez", "get", "/livez".to_owned(), 200),
        ("/livez", "get", "/livez?x".to_owned(), 400),
        ("/readyz", "get", "/readyz".to_owned(), 200),
        ("/metrics", "get", "/metrics?x=y".to_owned(), 400),
        ("/v1/routes", "get", "/v1/routes".to_owned(), 200),
        ("/v1/drain", "get", "/v1/drain".to_owned(), 200),
        ("/v1/drain", "post", "/v1/drain?endpoint=x".to_owned(), 404),
        ("/v1/drain", "post", "/v1/drain?over=1h&route=test".to_owned(), 202),
        ("/v1/drain", "get", "/v1/drain".to_owned(), 200),
        ("/v1/drain", "delete", "/v1/drain?route=test".to_owned(), 200),
        ("/v1/drain", "delete", "/v1/drain?route=test".to_owned(), 404),
        ("/v1/sessions", "get", "/v1/sessions".to_owned(), 200),
        ("/v1/sessions", "get", "/v1/sessions?limit=x".to_owned(), 400),
        ("/v1/sessions", "get", "/v1/sessions?route=x".to_owned(), 404),
        ("/v1/sessions", "delete", "/v1/sessions".to_owned(), 400),
        ("/v1/sessions", "delete", "/v1/sessions?min_age=1h".to_owned(), 202),
        ("/v1/sessions/{id}", "get", one.clone(), 200),
        ("/v1/sessions/{id}", "get", "/v1/sessions/x".to_owned(), 400),
        (tap, "get", format!("{one}/tap?preview=1025"), 400),
        last,
    ] {
        let reply = api.ask(&method.to_ascii_uppercase(), &target);
        assert_eq!(reply.status, status, "{method} {target}: {reply:?}");
        file.check_reply(path, method, &reply);
    }
    assert_eq!(joined.gw.line()["close_reason"], "killed");
    joined.gw.gateway.drain();
    drop((joined.client, joined.peer));
    joined.gw.stop();
}

#[test]
fn who_may_not_ask_is_refused_as_the_file_says() {
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "0123456789abcdef").expect("written");
    let gw = Gw::from_toml(&format!(
        "[gateway]\nworkers = 1\nadmin = \"127.0.0.1:0\"\nadmin_token_file = {:?}\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"a\"\nto = [\"127.0.0.1:9\"]\n",
        token.path()
    ));
    let mut api = Api::of(&gw.gateway);
    api.token = Some("0123456789abcdef".to_owned());
    let file = File::served(&api);
    api.token = None;
    for path in file.paths() {
        for method in METHODS {
            let operation = &file.0["paths"][path][method];
            if operation.is_object() && operation["security"] != serde_json::json!([]) {
                let reply = api.ask(&method.to_ascii_uppercase(), &path.replace("{id}", "x"));
                assert_eq!(reply.status, 401, "{method} {path}");
                file.check_reply(path, method, &reply);
            }
        }
    }
    gw.stop();
}

#[test]
fn the_file_names_every_parameter_that_is_understood() {
    let (joined, api, _) = joined();
    let file = File::served(&api);
    let tap = "/v1/sessions/{id}/tap";
    for (path, method) in [("/v1/sessions", "get"), ("/v1/sessions", "delete"), (tap, "get")] {
        let operation = &file.0["paths"][path][method];
        let parameters = operation["parameters"].as_array().expect("a list").iter();
        let names: Vec<_> =
            parameters.map(|p| file.resolved(p)["name"].as_str().expect("a name")).collect();
        let target = path.replace("{id}", "x") + "?x=y";
        let hint = api.ask(&method.to_ascii_uppercase(), &target).json();
        let hint = hint["hint"].as_str().expect("a text").to_owned();
        let understood = hint.strip_prefix("allowed here: ").expect("a list").split(", ");
        assert_eq!(names, understood.collect::<Vec<_>>(), "{method} {path}");
    }
    joined.ended_any();
}
