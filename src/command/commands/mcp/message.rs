//! The messages of JSON-RPC 2.0, one a line.

use serde_json::{Value, json};

/// The most bytes that a message of the client's may have.
pub const LONGEST: u64 = 4 << 20;

/// The codes of JSON-RPC for what is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Code {
    Parse = -32700,
    Request = -32600,
    Method = -32601,
    Parameters = -32602,
}

/// What a line asks for.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// Wants an answer under this id.
    Request {
        id: Value,
        method: String,
        params: Value,
    },
    /// Wants none.
    Notification { method: String, params: Value },
    /// An answer; this server asks nothing, so there is nothing that it answers.
    Answer,
}

/// What a line asks for, or the answer that says what is wrong with it.
pub fn read(line: &[u8]) -> Result<Message, Value> {
    let value: Value = serde_json::from_slice(line).map_err(|why| {
        let why = format!("a message is one line of JSON: {why}");
        error(&Value::Null, Code::Parse, &why)
    })?;
    let Value::Object(mut object) = value else {
        let why = "a message is one JSON object; batches are not served";
        return Err(error(&Value::Null, Code::Request, why));
    };
    let id = object.remove("id");
    let params = object.remove("params").unwrap_or(Value::Null);
    match (object.remove("method"), id) {
        (Some(Value::String(method)), None) => Ok(Message::Notification { method, params }),
        (Some(Value::String(method)), Some(id)) if id.is_string() || id.is_number() => {
            Ok(Message::Request { id, method, params })
        }
        (None, Some(_)) if object.contains_key("result") || object.contains_key("error") => {
            Ok(Message::Answer)
        }
        (_, id) => {
            let why = "a request has a method, and an id that is a text or a number";
            Err(error(&id.unwrap_or_default(), Code::Request, why))
        }
    }
}

pub fn answer(id: &Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

pub fn error(id: &Value, code: Code, why: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code as i32, "message": why}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_requests_notifications_or_answers() {
        let request = read(br#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#).expect("a request");
        let expected = Message::Request {
            id: "a".into(),
            method: "ping".into(),
            params: Value::Null,
        };
        assert_eq!(request, expected);
        let told = read(br#"{"jsonrpc":"2.0","method":"n","params":{"x":1}}"#).expect("one");
        let expected = Message::Notification {
            method: "n".into(),
            params: json!({"x": 1}),
        };
        assert_eq!(told, expected);
        assert_eq!(read(br#"{"id":1,"result":{}}"#), Ok(Message::Answer));
    }

    #[test]
    fn what_is_no_message_is_answered_with_its_code() {
        let code =
            |line: &str| read(line.as_bytes()).expect_err("refused")["error"]["code"].clone();
        assert_eq!(code("{"), -32700);
        assert_eq!(code("[]"), -32600);
        assert_eq!(code(r#"{"id":1}"#), -32600);
        assert_eq!(code(r#"{"id":null,"method":"ping"}"#), -32600);
        assert_eq!(code(r#"{"id":{},"method":"ping"}"#), -32600);
    }
}
