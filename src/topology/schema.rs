//! The JSON Schema of the format: what an editor knows of a topology while it is written.
//!
//! It refuses what can be refused word by word; what needs two words at once is left to the validation.

use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{FromWord, Probe, Route, Short, Topology, Tunnel};

impl Topology {
    /// JSON Schema of the format.
    pub fn schema() -> Schema {
        let mut schema = schemars::schema_for!(Topology);
        RecursiveTransform(without_null).transform(&mut schema);
        RecursiveTransform(with_limits).transform(&mut schema);
        schema
    }
}

impl<T: FromWord + JsonSchema> JsonSchema for Short<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}Entry", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let word = generator.subschema_for::<T::Word>();
        let mapping = generator.subschema_for::<T>();
        json_schema!({"description": format!("Expected {}.", T::EXPECTED), "anyOf": [word, mapping]})
    }
}

/// A list of routes, whose items or all of which may be in a file of their own.
pub(super) fn routes(generator: &mut SchemaGenerator) -> Schema {
    let route = generator.subschema_for::<Short<Route>>();
    let file = generator.subschema_for::<RouteFile>();
    json_schema!({"anyOf": [{"type": "array", "items": {"anyOf": [route, file]}}, file]})
}

/// What is expanded before types are read.
struct RouteFile;

impl JsonSchema for RouteFile {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RouteFile".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Route::json_schema(generator);
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            properties.remove("to");
            let file = json!({
                "description": "A file in the topology's directory or below it: a prefix a line, behind it keys and \
                                values as a route has them, and comments from `#` on.",
                "type": "string",
                "minLength": 1
            });
            properties.insert("file".into(), file);
        }
        schema.insert("required".into(), json!(["file"]));
        let description = "Routes from a file. What else is given holds for every line that doesn't say it itself.";
        schema.insert("description".into(), description.into());
        schema
    }
}

/// A tunnel's schema without its lists: those can't be every tunnel's.
pub(super) fn defaults(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Tunnel::json_schema(generator);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.remove("addresses");
        properties.remove("routes");
        properties.insert("probe".into(), probe_of_many(generator));
    }
    schema.insert(
        "description".into(),
        "Options for every tunnel that doesn't set them itself.".into(),
    );
    schema
}

/// Options that a mesh's tunnels may have: the mesh itself gives them their ends, addresses and routes.
pub(super) fn mesh_tunnel(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = defaults(generator);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.remove("local");
        properties.remove("remote");
    }
    schema.insert(
        "description".into(),
        "Options of the mesh's tunnels.".into(),
    );
    schema
}

/// A probe without the one host that it goes to.
fn probe_of_many(generator: &mut SchemaGenerator) -> Value {
    let mut schema = Probe::json_schema(generator);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.remove("target");
    }
    schema.insert(
        "description".into(),
        "How the tunnels are probed: by `tunnelform probe`, and, where this key is given, by `tunnelform watch` all the time.".into(),
    );
    schema.to_value()
}

/// The words that are read; what the kernel shows has more.
pub(super) fn scope(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            {"enum": ["global", "universe", "site", "link", "host"]},
            {"type": "integer", "minimum": 0, "maximum": 254}
        ]
    })
}

/// A key that may be absent may not be null: `remote:` with nothing behind it is an accident.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            schema.insert("type".into(), one);
        }
    }
    let Some(Value::Array(choices)) = schema.get_mut("anyOf") else {
        return;
    };
    choices.retain(|choice| *choice != json!({"type": "null"}));
    if let [Value::Object(one)] = choices.as_slice() {
        let one = one.clone();
        schema.remove("anyOf");
        for (key, value) in one {
            schema.insert(key, value);
        }
    }
}

/// `format` is a hint that few editors take.
fn with_limits(schema: &mut Schema) {
    let most = match schema.remove("format") {
        Some(Value::String(format)) if format == "uint32" => json!(u32::MAX),
        _ => return,
    };
    if schema.get("maximum").is_none() {
        schema.insert("maximum".into(), most);
    }
}
