//! Events of the journal, one line each: a line can be followed and searched, a table cannot.

use std::fmt::Write;

use pgferry_api::Event;
use serde_json::Value;

use super::plain;

/// All of them, in order.
pub(crate) fn events(events: &[Event]) -> String {
    events.iter().map(|shown| format!("{}\n", event(shown))).collect()
}

/// `    7  2026-11-21T06:00:00.123Z  epoch 2  completed  step=copy_rows`
pub(crate) fn event(event: &Event) -> String {
    let Event { seq, at, epoch, event, fields } = event;
    let mut out = format!("{seq:>5}  {at:.3}  epoch {epoch}  {}", plain(event));
    for (key, value) in fields {
        let _ = write!(out, "  {}={}", plain(key), field(value));
    }
    out.replace('\n', " ")
}

/// A word as it is; everything else, and text with blanks, as JSON.
fn field(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.contains(char::is_whitespace) => {
            plain(text)
        }
        Value::String(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Array(_)
        | Value::Object(_) => plain(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let text = r#"{"seq": 7, "at": "2026-11-21T06:00:00.123456Z", "epoch": 2, "event": "completed",
            "step": "copy_rows", "rows": 12, "note": "a\nb", "more": null}"#;
        let shown = event(&serde_json::from_str(text).unwrap());
        assert_eq!(
            shown,
            "    7  2026-11-21T06:00:00.123Z  epoch 2  completed  more=null  note=\"a\\nb\"  rows=12  step=copy_rows"
        );
    }
}
