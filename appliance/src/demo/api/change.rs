//! Changes of objects: whole ones and patches, to the object or to its status alone.

use super::refusal::Refusal;
use serde_json::{Value, json};

/// What a body is, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The whole object.
    Whole,
    /// RFC 7386. A strategic merge patch is taken as one: lists are replaced, never merged.
    Merge,
    /// RFC 6902.
    Operations,
}

impl Form {
    /// The form of a patch.
    ///
    /// # Errors
    /// It is none that is understood here.
    pub fn of_patch(media_type: &str) -> Result<Form, Refusal> {
        match media_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" | "application/strategic-merge-patch+json" => Ok(Form::Merge),
            "application/json-patch+json" => Ok(Form::Operations),
            other => Err(Refusal::media_type(other)),
        }
    }
}

/// What a change touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All but the status.
    Object,
    /// The status alone.
    Status,
    /// All of it: the kind keeps its status in no subresource.
    All,
}

/// What shall be there.
///
/// # Errors
/// The patch does not fit, or is none.
pub fn changed(before: &Value, body: &Value, form: Form, part: Part) -> Result<Value, Refusal> {
    let mut after = before.clone();
    match form {
        Form::Whole => after = body.clone(),
        Form::Merge => json_patch::merge(&mut after, body),
        Form::Operations => {
            let patch: json_patch::Patch =
                serde_json::from_value(body.clone()).map_err(|why| Refusal::bad(format!("no JSON patch: {why}")))?;
            json_patch::patch(&mut after, &patch)
                .map_err(|why| Refusal::invalid(format!("the patch does not fit: {why}")))?;
        }
    }
    if !after.is_object() {
        return Err(Refusal::bad("the body is no object"));
    }
    match part {
        Part::All => {}
        Part::Object => keep(&mut after, before, "status"),
        Part::Status => {
            let status = after.get("status").cloned().unwrap_or_else(|| json!({}));
            let named: Vec<(&str, Value)> =
                ["resourceVersion", "uid"].map(|field| (field, after["metadata"][field].clone())).into();
            after = before.clone();
            after["status"] = status;
            for (field, value) in named {
                after["metadata"][field] = value;
            }
        }
    }
    Ok(after)
}

fn keep(after: &mut Value, before: &Value, field: &str) {
    let Some(fields) = after.as_object_mut() else { return };
    match before.get(field) {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_changes_its_part_and_no_other() {
        let node = json!({"metadata": {"name": "n", "resourceVersion": "7"}, "spec": {"taints": [1]}, "status": {"phase": "x"}});
        let merged =
            changed(&node, &json!({"spec": {"unschedulable": true}, "status": {}}), Form::Merge, Part::Object).unwrap();
        assert_eq!(
            (merged["spec"]["unschedulable"].clone(), merged["status"]["phase"].clone()),
            (json!(true), json!("x"))
        );
        let status = changed(&node, &json!({"spec": {}, "status": {"phase": "y"}}), Form::Whole, Part::Status).unwrap();
        assert_eq!((status["spec"]["taints"].clone(), status["status"]["phase"].clone()), (json!([1]), json!("y")));
        let operations =
            json!([{"op": "test", "path": "/spec/taints/0", "value": 1}, {"op": "remove", "path": "/spec/taints/0"}]);
        assert_eq!(changed(&node, &operations, Form::Operations, Part::Object).unwrap()["spec"]["taints"], json!([]));
        let wrong = json!([{"op": "test", "path": "/spec/taints/0", "value": 2}]);
        assert_eq!(changed(&node, &wrong, Form::Operations, Part::Object).unwrap_err().code, 422);
        assert_eq!(Form::of_patch("application/apply-patch+yaml").unwrap_err().code, 415);
    }
}
