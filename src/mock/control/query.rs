//! The query of a request: names and values, as they stand.
//!
//! Nothing is decoded: every value that the API takes is a name of an upstream, a word or a number.

use axum::extract::Request;

use super::Problem;

/// The parameters of a query.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads it. Fails on a parameter that the route does not take, or that is there twice.
    pub(super) fn of(request: &Request, known: &[&str]) -> Result<Self, Problem> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in request.uri().query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                let detail = format!("The query takes {}.", known.join(", "));
                return Err(Problem::bad("?", detail));
            }
            if parameters.iter().any(|(each, _)| each == name) {
                return Err(Problem::bad(format!("?{name}"), "It stands more than once."));
            }
            parameters.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self(parameters))
    }

    /// A parameter's text; `None` if it is not there or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(each, _)| each == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A parameter as something else.
    pub(super) fn parse<T: std::str::FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        let parse =
            |text: &str| text.parse().map_err(|_| Problem::bad(format!("?{name}"), format!("must be {expected}")));
        self.text(name).map(parse).transpose()
    }
}
