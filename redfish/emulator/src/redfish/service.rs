//! What a Redfish service has beside the machine: the documents of OData, roles, and which methods a resource takes.

use super::answer::Answer;
use super::tree::{Paths, settings_path};
use crate::state::State;
use hyper::Method;
use serde_json::{Value, json};

/// Names and privileges of the standard's roles (DSP0266, section 13.4.1).
pub(super) const ROLES: [(&str, &[&str]); 3] = [
    ("Administrator", &["Login", "ConfigureManager", "ConfigureUsers", "ConfigureComponents", "ConfigureSelf"]),
    ("Operator", &["Login", "ConfigureComponents", "ConfigureSelf"]),
    ("ReadOnly", &["Login", "ConfigureSelf"]),
];

/// What hangs on the service root.
const TOP: [&str; 5] = ["Systems", "Chassis", "Managers", "SessionService", "AccountService"];

/// The schema's document: just enough to name the root.
const METADATA: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<edmx:Edmx xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx" Version="4.0">
  <edmx:Reference Uri="http://redfish.dmtf.org/schemas/v1/ServiceRoot_v1.xml">
    <edmx:Include Namespace="ServiceRoot"/>
    <edmx:Include Namespace="ServiceRoot.v1_9_0"/>
  </edmx:Reference>
  <edmx:Reference Uri="http://redfish.dmtf.org/schemas/v1/RedfishExtensions_v1.xml">
    <edmx:Include Namespace="RedfishExtensions.v1_0_0" Alias="Redfish"/>
  </edmx:Reference>
  <edmx:DataServices>
    <Schema xmlns="http://docs.oasis-open.org/odata/ns/edm" Namespace="Service">
      <EntityContainer Name="Service" Extends="ServiceRoot.v1_9_0.ServiceContainer"/>
    </Schema>
  </edmx:DataServices>
</edmx:Edmx>
"#;

/// The documents that are no resources.
pub(super) fn document(path: &str) -> Option<Answer> {
    match path {
        "/redfish/v1/$metadata" => {
            let answer = Answer { body: Some(json!(METADATA)), ..Answer::status(200) };
            Some(answer.with("Content-Type", "application/xml;charset=utf-8"))
        }
        "/redfish/v1/odata" => {
            let mut value = vec![json!({ "name": "Service", "kind": "Singleton", "url": "/redfish/v1/" })];
            value.extend(
                TOP.map(|name| json!({ "name": name, "kind": "Singleton", "url": format!("/redfish/v1/{name}") })),
            );
            Some(Answer::resource(json!({ "@odata.context": "/redfish/v1/$metadata", "value": value })))
        }
        _ => None,
    }
}

/// A role, or all of them.
pub(super) fn roles(path: &str) -> Option<Value> {
    let rest = path.strip_prefix("/redfish/v1/AccountService/Roles")?;
    if rest.is_empty() {
        let members = ROLES.map(|(name, _)| json!({ "@odata.id": format!("{path}/{name}") }));
        return Some(json!({ "@odata.id": path, "@odata.type": "#RoleCollection.RoleCollection",
            "Members@odata.count": members.len(), "Members": members }));
    }
    let (name, privileges) = ROLES.into_iter().find(|(name, _)| rest.strip_prefix('/') == Some(name))?;
    Some(json!({ "@odata.id": path, "@odata.type": "#Role.v1_3_1.Role", "Id": name, "RoleId": name,
        "IsPredefined": true, "AssignedPrivileges": privileges }))
}

/// The methods that a resource takes, as its `Allow` header lists them.
pub(super) fn allowed(state: &State, path: &str) -> &'static str {
    let paths = Paths::of(&state.model);
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    match (parent, path) {
        (_, "/redfish/v1/SessionService/Sessions" | "/redfish/v1/AccountService/Accounts") => "GET, HEAD, POST",
        ("/redfish/v1/SessionService/Sessions", _) => "GET, HEAD, DELETE",
        ("/redfish/v1/AccountService/Accounts", _) => "GET, HEAD, PATCH, DELETE",
        _ if path == paths.system || settings_path(&state.model, &paths).as_deref() == Some(path) => "GET, HEAD, PATCH",
        _ => "GET, HEAD",
    }
}

/// Whether an account may do this. Everybody may read; an administrator may do everything, an operator what concerns the
/// system, and each may change its own password and close its own sessions.
pub(super) fn may(state: &State, user: &str, method: &Method, path: &str, body: &Value) -> bool {
    if matches!(method.as_str(), "GET" | "HEAD") {
        return true;
    }
    let place = state.accounts.iter().position(|account| account.name == user);
    let account = place.and_then(|place| state.accounts.get(place).map(|account| (place, account)));
    let Some((place, account)) = account else { return false };
    let paths = Paths::of(&state.model);
    let own_password = path == format!("/redfish/v1/AccountService/Accounts/{}", place + 1)
        && method == Method::PATCH
        && body.as_object().is_some_and(|object| object.keys().all(|name| name == "Password"));
    let own_session = state
        .sessions
        .iter()
        .any(|session| session.user == user && path == format!("/redfish/v1/SessionService/Sessions/{}", session.id));
    let of_system = path.starts_with(&paths.system) || path.starts_with(&paths.media);
    account.privilege == 4 || own_password || own_session || (account.privilege == 3 && of_system)
}
