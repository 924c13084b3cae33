//! Numbers of things, in words.

use std::fmt::Display;

/// A number of things with this name: `1 node`, `2 nodes`.
pub(crate) fn counted(number: &dyn Display, name: &str) -> String {
    let number = number.to_string();
    let plural = match (&*number, name.ends_with('s')) {
        ("1", _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{number} {name}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_not_plural() {
        let nodes = [0, 1, 2, 11].map(|number| counted(&number, "node"));
        assert_eq!(nodes, ["0 nodes", "1 node", "2 nodes", "11 nodes"]);
        assert_eq!(counted(&1_u64, "address"), "1 address");
        assert_eq!(counted(&2_u64, "address"), "2 addresses");
    }
}
