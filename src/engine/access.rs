//! What a server wants to see before it answers.

/// A key and headers that go with every request. They may be secrets, so there is no `Debug` form of them.
#[derive(Clone, Default)]
pub struct Access {
    /// The key, sent as a bearer token.
    pub api_key: Option<String>,
    /// Headers: name and value.
    pub headers: Vec<(String, String)>,
}
