//! `GET …/{name}/copy?state=STATE[,STATE…]`: the copy table by table, read from its counters when
//! asked. Before the copy begins every figure is null and there is no table.

use axum::Json;
use pgferry_api::{CopyReport, CopyState};
use serde::{Deserialize, Deserializer, de};

use crate::extract::{Parameters, Target};

/// The sums, and every table or those in the states asked for.
pub(super) async fn show(
    Target(handle): Target,
    Parameters(filter): Parameters<Filter>,
) -> Json<CopyReport> {
    Json(handle.copy.read(filter.state.as_deref().unwrap_or(CopyState::ALL)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only tables in one of these states; the sums are over all tables in any case.
    #[serde(default, deserialize_with = "states")]
    state: Option<Vec<CopyState>>,
}

fn states<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<CopyState>>, D::Error> {
    let text = String::deserialize(from)?;
    let states = text.split(',').map(str::parse).collect::<Result<_, _>>();
    states.map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use pgferry_api::CopyTable;
    use serde_json::json;

    use super::*;
    use crate::fixture::Fixture;

    const PATH: &str = "/v1/migrations/orders/copy";

    fn table(name: &str, state: CopyState) -> CopyTable {
        CopyTable {
            schema: "public".to_owned(),
            table: name.to_owned(),
            state,
            rows: 5,
            bytes: 100,
            bytes_expected: 400,
            indexes_total: 2,
            indexes_done: 0,
            seconds_left: Some(1.5),
        }
    }

    fn running() -> CopyReport {
        CopyReport {
            tables_total: Some(3),
            tables_done: Some(1),
            tables: vec![
                table("a", CopyState::Copying),
                table("b", CopyState::Indexing),
                table("c", CopyState::Waiting),
            ],
            ..CopyReport::default()
        }
    }

    #[tokio::test]
    async fn before_the_copy_nothing_is_known_and_there_is_no_table() {
        let expected = serde_json::to_value(CopyReport::default()).unwrap();
        let answer = Fixture::new().get(PATH).await;
        answer.is_json(200, expected);
        assert_eq!(answer.json()["bytes"], json!(null));
        assert_eq!(answer.json()["tables"], json!([]));
    }

    #[tokio::test]
    async fn shows_what_the_counters_say_at_that_moment() {
        let fixture = Fixture::new();
        fixture.set_copy(running());
        fixture.get(PATH).await.is_json(200, serde_json::to_value(running()).unwrap());
        fixture.set_copy(CopyReport { tables_done: Some(3), ..CopyReport::default() });
        assert_eq!(fixture.get(PATH).await.json()["tables_done"], 3);
    }

    #[tokio::test]
    async fn tables_may_be_asked_for_by_their_state() {
        let fixture = Fixture::new();
        fixture.set_copy(running());
        let names = async |query: &str| {
            let shown = fixture.get(&format!("{PATH}{query}")).await.json();
            assert_eq!(shown["tables_total"], 3, "the sums are over all tables");
            let tables = shown["tables"].as_array().unwrap().clone();
            tables.iter().map(|t| t["table"].as_str().unwrap().to_owned()).collect::<String>()
        };
        assert_eq!(names("").await, "abc");
        assert_eq!(names("?state=copying").await, "a");
        assert_eq!(names("?state=copying,indexing").await, "ab");
        assert_eq!(names("?state=done").await, "");
        for bad in ["?state=", "?state=running", "?state=copying,", "?states=copying"] {
            let answer = fixture.get(&format!("{PATH}{bad}")).await;
            answer.is_problem(400, "invalid_query");
        }
        let problem = fixture.get(&format!("{PATH}?state=running")).await.json();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("waiting, copying, indexing, done"), "{detail}");
    }
}
