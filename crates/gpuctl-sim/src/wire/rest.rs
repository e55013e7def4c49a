//! What is not simulated: another emulator has the networks, images and launch templates, and answers every call on them.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use quick_xml::Reader;
use quick_xml::events::Event;

use super::actions::SUBNET;
use super::query::Query;
use crate::world::ec2::{LaunchTemplate, MarketOptions, SpotKind, SpotOptions};

const FORM: &str = "application/x-www-form-urlencoded";

/// Another emulator of EC2.
pub struct Rest {
    url: String,
    spot: Vec<String>,
}

impl Rest {
    /// The emulator at `url`. It does not say the market of its launch templates: those called `spot` are of persistent spot boxes.
    #[must_use]
    pub fn new(url: String, spot: &[&str]) -> Self {
        Self { url, spot: spot.iter().map(|name| (*name).to_owned()).collect() }
    }

    /// For a call with these headers, which name account and region.
    pub(super) fn of_call(&self, headers: &HeaderMap) -> Call<'_> {
        let authorization = headers.get(header::AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        Call { rest: self, authorization: authorization.unwrap_or_default().to_owned() }
    }
}

/// One call, in the name of its caller.
pub(super) struct Call<'r> {
    rest: &'r Rest,
    authorization: String,
}

impl Call<'_> {
    /// The emulator's own response.
    pub(super) async fn forward(&self, body: Bytes) -> Response {
        let (status, text) = self.ask(body.to_vec()).await;
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        let xml = header::HeaderValue::from_static("text/xml");
        response.headers_mut().insert(header::CONTENT_TYPE, xml);
        response
    }

    /// The launch template of a launch; its subnets become the zones that they are in.
    pub(super) async fn launch(&self, query: &mut Query) -> Option<LaunchTemplate> {
        self.to_zones(query).await;
        let fleets = "LaunchTemplateConfigs.1.LaunchTemplateSpecification";
        let named = ["LaunchTemplate", fleets].iter().find_map(|from| {
            let by = |key: &'static str| Some((key, query.text(&format!("{from}.{key}"))?));
            by("LaunchTemplateName").or_else(|| by("LaunchTemplateId"))
        });
        let (key, value) = named?;
        let form = format!(
            "Action=DescribeLaunchTemplateVersions&Version=2016-11-15&{key}={value}&LaunchTemplateVersion.1=%24Latest"
        );
        let (_, text) = self.ask(form.into_bytes()).await;
        self.template(&leaves(&text))
    }

    async fn to_zones(&self, query: &mut Query) {
        if let Some(subnet) = query.text("SubnetId").map(str::to_owned)
            && let Some(zone) = self.zone(&subnet).await
        {
            query.set("Placement.AvailabilityZone", zone);
        }
        for item in query.items("LaunchTemplateConfigs.1.Overrides") {
            let key = format!("{item}.SubnetId");
            if let Some(subnet) = query.text(&key).map(str::to_owned)
                && let Some(zone) = self.zone(&subnet).await
            {
                query.set(&key, format!("{SUBNET}{zone}"));
            }
        }
    }

    async fn zone(&self, subnet: &str) -> Option<String> {
        let form = format!("Action=DescribeSubnets&Version=2016-11-15&SubnetId.1={subnet}");
        let (_, text) = self.ask(form.into_bytes()).await;
        value(&leaves(&text), "availabilityZone")
    }

    fn template(&self, found: &[(String, String)]) -> Option<LaunchTemplate> {
        let name = value(found, "launchTemplateName")?;
        let persistent = SpotOptions { kind: SpotKind::Persistent, valid_until: None };
        let is_spot = self.rest.spot.contains(&name);
        Some(LaunchTemplate {
            id: value(found, "launchTemplateId")?,
            name,
            version: value(found, "versionNumber")?.parse().ok()?,
            image_id: value(found, "imageId")?,
            instance_type: value(found, "instanceType")?,
            market: if is_spot { MarketOptions::Spot(persistent) } else { MarketOptions::OnDemand },
            tags: instance_tags(found),
        })
    }

    async fn ask(&self, body: Vec<u8>) -> (StatusCode, String) {
        let (url, authorization) = (self.rest.url.clone(), self.authorization.clone());
        let sent = tokio::task::spawn_blocking(move || {
            let agent = ureq::Agent::config_builder().http_status_as_error(false).build();
            let call = ureq::Agent::new_with_config(agent).post(url);
            let call = call.header("Authorization", authorization).header("Content-Type", FORM);
            let mut answer = call.send(&body[..])?;
            Ok::<_, ureq::Error>((answer.status().as_u16(), answer.body_mut().read_to_string()?))
        });
        let failed = |error: String| (StatusCode::BAD_GATEWAY, error);
        match sent.await {
            Ok(Ok((status, text))) => {
                (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), text)
            }
            Ok(Err(error)) => failed(error.to_string()),
            Err(error) => failed(error.to_string()),
        }
    }
}

/// The elements that hold text, in their order.
fn leaves(xml: &str) -> Vec<(String, String)> {
    let (mut reader, mut name, mut all) = (Reader::from_str(xml), String::new(), Vec::new());
    loop {
        match reader.read_event() {
            Ok(Event::Start(begin)) => {
                name = String::from_utf8_lossy(begin.local_name().as_ref()).into_owned();
            }
            Ok(Event::Text(text)) => {
                let text = String::from_utf8_lossy(&text).trim().to_owned();
                if !text.is_empty() {
                    all.push((name.clone(), text));
                }
            }
            Ok(Event::Eof) | Err(_) => return all,
            Ok(_) => {}
        }
    }
}

fn value(found: &[(String, String)], name: &str) -> Option<String> {
    found.iter().find(|(of, _)| of == name).map(|(_, text)| text.clone())
}

/// What a launch template tags its boxes with.
fn instance_tags(found: &[(String, String)]) -> BTreeMap<String, String> {
    let (mut kind, mut key, mut tags) = ("", "", BTreeMap::new());
    for (name, text) in found {
        match name.as_str() {
            "resourceType" => kind = text,
            "key" => key = text,
            "value" if kind == "instance" => {
                tags.insert(key.to_owned(), text.clone());
            }
            _ => {}
        }
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tags_of_instances_are_those_of_boxes() {
        let xml = "<a>\n<item><resourceType>instance</resourceType><tagSet><item><key>gpuctl:pool</key>\
            <value>gpu</value></item></tagSet></item><item><resourceType>volume</resourceType><tagSet>\
            <item><key>Name</key><value>x</value></item></tagSet></item></a>";
        let tags = BTreeMap::from([("gpuctl:pool".to_owned(), "gpu".to_owned())]);
        assert_eq!(instance_tags(&leaves(xml)), tags);
        assert_eq!(value(&leaves(xml), "resourceType").as_deref(), Some("instance"));
    }
}
