//! The page at `/ui`: what a browser shows of the API. It holds no secret, so it needs no token; what it asks does.
//!
//! One document with nothing from elsewhere. Another origin's page can read nothing here, since no answer allows it
//! to, and change nothing: over TCP every request needs the token, which browsers add to none, and where there is no
//! token [`super::browser`] looks who asks.

use hyper::StatusCode;
use hyper::header::{
    CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

use super::reply::{self, Answer};
use crate::http::page::policy;

const PAGE: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>upsplice</title>\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
    "<meta name=\"color-scheme\" content=\"light dark\">\n",
    "<link rel=\"icon\" href=\"data:,\">\n<style>",
    include_str!("ui/page.css"),
    "</style>\n</head>\n",
    include_str!("ui/page.html"),
    "<script>",
    include_str!("ui/page.js"),
    "</script>\n</body>\n</html>\n",
);
const STYLE_HASH: &str = "sha256-/mv775WKRMU7wiqc+eNO0EgCVISoQ6MAIFZsS1b2Tyk=";
const SCRIPT_HASH: &str = "sha256-nR5HtXPO/GGLt5W5snZuq4hDQjJF431NR6xfRIE4iD4=";

/// `GET /ui`
pub(super) fn page() -> Answer {
    let mut answer = reply::whole(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let headers = answer.headers_mut();
    let policy = HeaderValue::from_str(&policy(SCRIPT_HASH, STYLE_HASH)).expect("it is ASCII");
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_policy_admits_exactly_the_script_and_the_style_of_the_page() {
        let hash = |text: &str| format!("sha256-{}", STANDARD.encode(Sha256::digest(text)));
        let script = hash(include_str!("ui/page.js"));
        assert_eq!(SCRIPT_HASH, script, "the script changed: set SCRIPT_HASH to {script}");
        let style = hash(include_str!("ui/page.css"));
        assert_eq!(STYLE_HASH, style, "the style sheet changed: set STYLE_HASH to {style}");
    }

    #[test]
    fn the_page_is_whole_and_asks_nobody_else_for_anything() {
        let (style, script) = (include_str!("ui/page.css"), include_str!("ui/page.js"));
        assert!(!script.contains("</script") && !style.contains("</style"));
        for outside in
            ["https://", "src=\"", "@import", "url(", " style=", " onclick=", "innerHTML"]
        {
            assert!(!PAGE.contains(outside), "the page contains {outside:?}");
        }
        // The name of SVG is an address that nobody asks.
        assert_eq!(PAGE.matches("http://").count(), 1);
    }
}
