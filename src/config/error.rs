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

    /// The value; a long one is cut off and ends in `…`. `None`: it is about all its values.
    #[cfg(feature = "program")]
    pub(super) fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }

    /// Whether it is about this value.
    #[cfg(feature = "program")]
    pub(super) fn is_about(&self, value: &str) -> bool {
        let shown = self.value.as_deref();
        shown.is_some_and(|shown| match shown.strip_suffix('…') {
            Some(begin) => value.starts_with(begin),
            None => value == shown,
        })
    }

    /// What is wrong, and what to do.
    #[cfg(feature = "program")]
    pub(super) fn problem(&self) -> &str {
        &self.problem
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
