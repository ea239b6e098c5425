//! What that part knows of the configuration.

#[path = "../../src/config/inspection.rs"]
pub mod inspection;
