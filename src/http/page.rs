//! What a browser may do with a page of ours: run its one script and style, and ask where it came from.

/// The value of `Content-Security-Policy` for a page with one script and one style sheet inside, by their hashes
/// (`sha256-` and base64; <https://www.w3.org/TR/CSP3/>). Nothing is loaded from elsewhere, and nobody frames it.
pub fn policy(script_hash: &str, style_hash: &str) -> String {
    format!(
        "default-src 'none'; script-src '{script_hash}'; style-src '{style_hash}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}
