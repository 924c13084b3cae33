//! Validates a status by the JSON Schema that `status --schema` prints.

const SCHEMA: &str = include_str!("../../src/daemon/status/schema.json");

/// Why the text is no status, according to its schema.
pub(crate) fn refused(text: &str) -> Option<String> {
    let read = |text| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let mut compiler = boon::Compiler::new();
    let mut schemas = boon::Schemas::new();
    let schema = read(SCHEMA);
    compiler.add_resource("status.json", schema).unwrap();
    let index = compiler.compile("status.json", &mut schemas).unwrap();
    let status = read(text);
    let validated = schemas.validate(&status, index);
    validated.err().map(|why| format!("{why:#}"))
}
