//! The error of an option: one sentence that names the option, the value, the bound and what to do.

use std::fmt;

/// An option with a value that cannot be used. The text of the error is one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    option: &'static str,
    value: Option<String>,
    problem: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.option)?;
        if let Some(value) = &self.value {
            write!(f, " {value:?}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for Error {}

impl Error {
    /// The option with this value.
    pub(crate) fn option(&self) -> &'static str {
        self.option
    }

    /// The sentence, with another name for the option.
    pub(crate) fn with_name(&self, option: &'static str) -> String {
        let (value, problem) = (self.value.clone(), self.problem.clone());
        let named = Self {
            option,
            value,
            problem,
        };
        named.to_string()
    }

    pub(super) fn new(option: &'static str, value: &str, problem: impl Into<String>) -> Self {
        const SHOWN: usize = 120;
        let mut shown: String = value.chars().take(SHOWN).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        Error {
            option,
            value: Some(shown),
            problem: problem.into(),
        }
    }

    pub(super) fn bare(option: &'static str, problem: impl Into<String>) -> Self {
        Error {
            option,
            value: None,
            problem: problem.into(),
        }
    }
}
