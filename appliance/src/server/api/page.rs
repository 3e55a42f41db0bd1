//! Pages of a list: so many items, and a cursor to where the next page begins. A cursor is the last item's key, so items that
//! come and go meanwhile neither repeat nor hide others.

use super::problem::Problem;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

/// Items of a page at most.
const LIMIT_MAX: usize = 1_000;
/// Items of a page unless asked otherwise.
const LIMIT: usize = 100;

/// What is asked of a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Begin after this.
    pub after: Option<String>,
    /// So many.
    pub limit: Option<usize>,
}

/// A page.
#[derive(Debug, Clone, Serialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The query of a list.
pub type Query = Result<axum::extract::Query<Asked>, QueryRejection>;

/// What is asked, or what is wrong with it.
///
/// # Errors
/// A parameter that is unknown, or no number.
pub fn asked(query: Query) -> Result<Asked, Problem> {
    let wrong = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "bad-query", detail);
    let axum::extract::Query(asked) =
        query.map_err(|_| wrong("a list takes `after` and `limit` and nothing else".to_owned()))?;
    match asked.limit {
        Some(limit) if limit == 0 || limit > LIMIT_MAX => Err(wrong(format!("`limit` is 1 to {LIMIT_MAX}"))),
        _ => Ok(asked),
    }
}

impl Asked {
    /// The page of all items that are already behind the cursor, in order.
    pub fn page<T, V>(
        &self,
        rest: impl Iterator<Item = T>,
        key: impl Fn(&T) -> String,
        show: impl Fn(T) -> V,
    ) -> Page<V> {
        let limit = self.limit.unwrap_or(LIMIT);
        let mut taken: Vec<T> = rest.take(limit + 1).collect();
        let more = taken.len() > limit;
        taken.truncate(limit);
        let next = taken.last().filter(|_| more).map(key);
        Page { items: taken.into_iter().map(show).collect(), next }
    }
}
