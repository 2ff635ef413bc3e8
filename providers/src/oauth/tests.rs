//! Tokens from a scripted token service, on a clock that is moved.

use std::path::PathBuf;
use std::time::SystemTime;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertifiedKey, KeyPair, PublicKeyData as _};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::entra::Entra;
use super::google::{Refresh, ServiceAccount};
use super::*;
use crate::conformance::http_api::{Answer, FakeApi, Request};
use crate::contract::ProviderName;
use crate::http::verdict::{Rule, Verdict};
use crate::registry::{Context, SettingsError};
use crate::settings::Secret;

fn granted(token: &str, lifetime: u64) -> Answer {
    Answer::json(200, &json!({ "token_type": "Bearer", "expires_in": lifetime, "access_token": token }).to_string())
}

fn down() -> Answer {
    Answer::json(503, &json!({ "error": "temporarily_unavailable" }).to_string())
}

fn context() -> Context {
    Context::new("relay.example").unwrap()
}

fn name() -> ProviderName {
    ProviderName::new("graph", "main")
}

fn entra<'a>(authority: &'a str, secret: &'a Secret) -> Entra<'a> {
    Entra {
        tenant: "corp.example",
        client_id: "app-id",
        client_secret: Some(secret),
        certificate: None,
        private_key: None,
        refresh_token: None,
        authority: Some(authority),
        app_scope: "https://graph.microsoft.com/.default",
        user_scope: "https://graph.microsoft.com/Mail.Send",
        patience: Duration::from_secs(20),
    }
}

/// A token service with a script, and tokens from it by secret.
async fn by_secret(answers: impl IntoIterator<Item = Answer>) -> (FakeApi, Tokens) {
    let api = FakeApi::start(answers).await.unwrap();
    let tokens = entra(&api.url(), &Secret::Literal("s&cret=1".into())).tokens(&name(), &context()).unwrap();
    (api, tokens)
}

/// Lets time pass. Only then does the clock stand still: sockets need the real one.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

async fn text(tokens: &Tokens) -> String {
    tokens.get().await.unwrap().as_str().to_owned()
}

/// Waits until so many requests were answered and dealt with.
async fn settled(api: &FakeApi, tokens: &Tokens, requests: usize) {
    while api.requests().len() < requests || tokens.0.cache.lock().flight.is_some() {
        tokio::task::yield_now().await;
    }
}

fn form(request: &Request) -> Vec<(String, String)> {
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    let url = reqwest::Url::parse(&format!("http://x/?{}", String::from_utf8_lossy(&request.body))).unwrap();
    url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

fn field(request: &Request, name: &str) -> String {
    form(request).into_iter().find(|(found, _)| found == name).map(|(_, value)| value).unwrap_or_default()
}

#[tokio::test]
async fn a_secret_gets_a_token_in_the_form_that_is_documented() {
    let (api, tokens) = by_secret([granted("one", 3600)]).await;
    assert_eq!(text(&tokens).await, "one");
    let (request, _) = &api.requests()[0];
    assert_eq!(request.line(), "POST /corp.example/oauth2/v2.0/token");
    let expected = [
        ("client_id", "app-id"),
        ("grant_type", "client_credentials"),
        ("scope", "https://graph.microsoft.com/.default"),
        ("client_secret", "s&cret=1"),
    ];
    assert_eq!(form(request), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[tokio::test]
async fn a_hundred_callers_make_one_request_and_one_that_gives_up_loses_nothing() {
    let slow = Answer::Late { after: Duration::from_millis(200), then: Box::new(granted("one", 3600)) };
    let (api, tokens) = by_secret([slow, granted("two", 3600)]).await;
    // The first of all, whose request it is, gives up.
    assert!(tokio::time::timeout(Duration::from_millis(50), tokens.get()).await.is_err());
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let tokens = tokens.clone();
            tokio::spawn(async move { text(&tokens).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), "one");
    }
    assert_eq!(api.requests().len(), 1);
}

#[tokio::test]
async fn a_token_is_kept_and_then_renewed_before_it_ends_without_anyone_waiting() {
    let (api, tokens) = by_secret([granted("one", 1000), granted("two", 1000)]).await;
    assert_eq!(text(&tokens).await, "one");
    pass(890).await;
    assert_eq!(text(&tokens).await, "one");
    assert_eq!(api.requests().len(), 1);
    pass(20).await;
    assert_eq!(text(&tokens).await, "one", "it lasts for another 90 s");
    settled(&api, &tokens, 2).await;
    assert_eq!(text(&tokens).await, "two");
    assert_eq!(api.requests().len(), 2);
}

#[tokio::test]
async fn an_expired_token_is_never_handed_out() {
    let (api, tokens) = by_secret([granted("one", 1000), granted("two", 1000), down()]).await;
    assert_eq!(text(&tokens).await, "one");
    pass(975).await;
    assert_eq!(text(&tokens).await, "two");
    pass(1000).await;
    assert!(matches!(tokens.get().await, Err(Failure::Unavailable(_))));
    assert_eq!(api.requests().len(), 3);
}

#[tokio::test]
async fn a_renewal_that_fails_costs_nothing_while_the_old_token_lasts() {
    let (api, tokens) = by_secret([granted("one", 1000), down(), granted("two", 1000)]).await;
    assert_eq!(text(&tokens).await, "one");
    pass(901).await;
    assert_eq!(text(&tokens).await, "one");
    settled(&api, &tokens, 2).await;
    assert_eq!(text(&tokens).await, "one");
    assert_eq!(api.requests().len(), 2, "not again at once");
    pass(31).await;
    assert_eq!(text(&tokens).await, "one");
    settled(&api, &tokens, 3).await;
    assert_eq!(text(&tokens).await, "two");
}

#[tokio::test]
async fn a_refused_token_is_forgotten_unless_it_was_fetched_just_now() {
    let (api, tokens) = by_secret([granted("one", 3600), granted("two", 3600)]).await;
    let one = tokens.get().await.unwrap();
    assert!(!tokens.refused(&one), "another one would be refused, too");
    assert_eq!(text(&tokens).await, "one");
    pass(61).await;
    assert!(tokens.refused(&one));
    assert!(tokens.refused(&one), "so it is for whoever was refused at the same time");
    let two = tokens.get().await.unwrap();
    assert_eq!(two.as_str(), "two");
    assert!(tokens.refused(&one), "a newer one is there");
    assert!(!tokens.refused(&two));
    assert_eq!(api.requests().len(), 2);
}

#[tokio::test]
async fn a_refused_token_is_used_on_while_no_other_is_to_be_had_for_it_may_be_good_for_others() {
    let (api, tokens) = by_secret([granted("one", 3600), down(), granted("two", 3600)]).await;
    let one = tokens.get().await.unwrap();
    pass(61).await;
    assert!(tokens.refused(&one));
    assert_eq!(text(&tokens).await, "one");
    assert!(!tokens.refused(&one), "whoever is refused again does not ask the token service again");
    assert_eq!((text(&tokens).await.as_str(), api.requests().len()), ("one", 2));
    pass(61).await;
    assert!(tokens.refused(&one));
    assert_eq!(text(&tokens).await, "two");
}

#[tokio::test]
async fn a_refusal_is_believed_for_a_while_so_that_nobody_hammers_the_token_service() {
    let no = Answer::json(400, &json!({ "error": "invalid_grant", "error_description": "no" }).to_string());
    let (api, tokens) = by_secret([no, granted("one", 3600)]).await;
    let first = tokens.get().await.unwrap_err();
    assert!(matches!(first, Failure::Unauthorized(_)), "{first:?}");
    for _ in 0..100 {
        assert_eq!(tokens.get().await, Err(first.clone()));
    }
    assert_eq!(api.requests().len(), 1);
    pass(31).await;
    assert_eq!(text(&tokens).await, "one");
}

#[tokio::test]
async fn a_call_that_is_refused_with_401_is_made_once_more_with_another_token() {
    let refused = |code| Part::Failed(Failure::Unauthorized(Diagnostic { code: Some(code), ..Diagnostic::local("no") }));
    let (api, tokens) = by_secret([granted("one", 3600), granted("two", 3600)]).await;
    let soon = Instant::now() + Duration::from_secs(3600);
    let calls = &Mutex::new(Vec::new());
    let call = |token: Token| async move {
        calls.lock().push(token.as_str().to_owned());
        if token.as_str() == "one" { refused(401) } else { Part::Answered(Vec::new()) }
    };
    assert_eq!(tokens.call(soon, call).await, refused(401), "it was fetched just now");
    pass(61).await;
    assert_eq!(tokens.call(soon, call).await, Part::Answered(Vec::new()));
    assert_eq!(*calls.lock(), ["one", "one", "two"]);
    // 403 is said of the request, not of the token; but a right that is missing may come with the next one.
    pass(61).await;
    assert_eq!(tokens.call(soon, |_| async { refused(403) }).await, refused(403));
    assert!(tokens.0.cache.lock().held.as_ref().unwrap().is_refused);
    assert_eq!(api.requests().len(), 2);
}

#[tokio::test]
async fn nothing_that_was_granted_or_configured_is_shown() {
    let leaky = json!({ "access_token": 5, "refresh_token": "granted-refresh", "id_token": "granted-id" });
    let (_api, tokens) = by_secret([Answer::json(200, &leaky.to_string()), granted("granted-access", 3600)]).await;
    let failure = format!("{:?}", tokens.get().await.unwrap_err());
    assert!(failure.contains("an answer without a token"));
    let token = tokens.get().await.unwrap();
    let shown = format!("{failure} {token:?} {tokens:?}");
    assert!(!shown.contains("granted-"), "{shown}");
    assert!(!shown.contains("s&cret"), "{shown}");
}

/// Checks the signature of an assertion, and gives its header and claims.
fn opened(assertion: &str, algorithm: &'static dyn VerificationAlgorithm, key: &KeyPair) -> (Value, Value) {
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(algorithm, key.subject_public_key_info()).verify(signed.as_bytes(), &signature).unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let json = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    (json(header), json(claims))
}

fn rsa() -> CertifiedKey<KeyPair> {
    let signing_key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let cert = rcgen::CertificateParams::new(vec!["relay.example".to_owned()]).unwrap().self_signed(&signing_key).unwrap();
    CertifiedKey { cert, signing_key }
}

fn file(dir: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

#[tokio::test]
async fn a_certificate_signs_an_assertion_as_entra_wants_it() {
    let (dir, pair) = (TempDir::new().unwrap(), rsa());
    let certificate = file(&dir, "cert.pem", &pair.cert.pem());
    let key = file(&dir, "key.pem", &pair.signing_key.serialize_pem());
    let api = FakeApi::start([granted("one", 3600)]).await.unwrap();
    let url = api.url();
    let secret = Secret::Literal("x".into());
    let settings = Entra { client_secret: None, certificate: Some(&certificate), private_key: Some(&key), ..entra(&url, &secret) };
    let tokens = settings.tokens(&name(), &context()).unwrap();
    assert_eq!(text(&tokens).await, "one");
    let (request, _) = &api.requests()[0];
    assert_eq!(field(request, "client_assertion_type"), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    assert_eq!(field(request, "client_secret"), "");
    let (header, claims) = opened(&field(request, "client_assertion"), &RSA_PSS_2048_8192_SHA256, &pair.signing_key);
    let thumbprint = URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pair.cert.der()));
    assert_eq!(header, json!({ "typ": "JWT", "alg": "PS256", "x5t#S256": thumbprint }));
    assert_eq!(
        (&claims["iss"], &claims["sub"], &claims["aud"]),
        (&json!("app-id"), &json!("app-id"), &json!(format!("{url}/corp.example/oauth2/v2.0/token")))
    );
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap(), 300);
    assert!(!claims["jti"].as_str().unwrap().is_empty());

    let other = file(&dir, "other.pem", &rsa().signing_key.serialize_pem());
    let wrong = Entra { private_key: Some(&other), ..settings }.tokens(&name(), &context()).unwrap_err();
    assert!(wrong.key == "private_key" && wrong.message.contains("is not the key of"), "{wrong:?}");
    let curve = file(&dir, "curve.pem", &KeyPair::generate().unwrap().serialize_pem());
    let wrong = Entra { private_key: Some(&curve), ..settings }.tokens(&name(), &context()).unwrap_err();
    assert!(wrong.key == "private_key" && wrong.message.contains("RSA keys only"), "{wrong:?}");
}

#[tokio::test]
async fn a_service_account_acts_for_a_mailbox() {
    let (dir, pair) = (TempDir::new().unwrap(), rsa());
    let api = FakeApi::start([granted("one", 3600)]).await.unwrap();
    let url = api.url();
    let key = json!({
        "type": "service_account", "client_email": "relay@project.iam.example", "private_key_id": "key-1",
        "private_key": pair.signing_key.serialize_pem(), "token_uri": "https://oauth2.googleapis.com/token",
    });
    let path = file(&dir, "key.json", &key.to_string());
    let account = ServiceAccount::read(&path, "gmail.send", Some(&url), Duration::from_secs(20), &context()).unwrap();
    assert_eq!(text(&account.tokens("relay@corp.example").unwrap()).await, "one");
    let (request, _) = &api.requests()[0];
    assert_eq!(field(request, "grant_type"), "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let (header, claims) = opened(&field(request, "assertion"), &RSA_PKCS1_2048_8192_SHA256, &pair.signing_key);
    assert_eq!(header, json!({ "typ": "JWT", "alg": "RS256", "kid": "key-1" }));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);
    for (claim, value) in [("iss", "relay@project.iam.example"), ("sub", "relay@corp.example"), ("scope", "gmail.send"), ("aud", &url)] {
        assert_eq!(claims[claim], value);
    }
    let broken = file(&dir, "broken.json", "{ \"private_key\": \"hunter2\" ");
    let error = ServiceAccount::read(&broken, "s", None, Duration::from_secs(20), &context()).unwrap_err();
    assert!(error.key == "credentials_file" && !error.message.contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn a_new_refresh_token_is_used_from_then_on_and_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("made").join("when-needed");
    let next = |refresh: &str| {
        let body = json!({ "access_token": "one", "expires_in": 100, "refresh_token": refresh });
        Answer::json(200, &body.to_string())
    };
    let api = FakeApi::start([next("r2"), next("r3"), next("r3"), granted("one", 100)]).await.unwrap();
    let url = api.url();
    let context = context().with_state(&state);
    let tokens = |configured: &str| {
        let (secret, refresh_token) = (Secret::Literal("x".into()), Secret::Literal(configured.into()));
        Entra { refresh_token: Some(&refresh_token), ..entra(&url, &secret) }.tokens(&name(), &context).unwrap()
    };
    let before = tokens("r1");
    text(&before).await;
    pass(100).await;
    text(&before).await;
    // A restart, and then another token in the config.
    text(&tokens("r1")).await;
    text(&tokens("R1")).await;
    let used: Vec<String> = api.requests().iter().map(|(request, _)| field(request, "refresh_token")).collect();
    assert_eq!(used, ["r1", "r2", "r3", "R1"]);
    let (request, _) = &api.requests()[0];
    assert_eq!(field(request, "scope"), "https://graph.microsoft.com/Mail.Send offline_access");

    let files: Vec<PathBuf> = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files, [state.join("graph.main.json")]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    }
    // A file that is damaged is as good as none.
    std::fs::write(&files[0], "{").unwrap();
    text(&tokens("r1")).await;
    assert_eq!(field(&api.requests()[4].0, "refresh_token"), "r1");
}

#[tokio::test]
async fn a_new_refresh_token_that_could_not_be_written_is_written_when_it_comes_again() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("state");
    // Where the directory should be, there is a file.
    std::fs::write(&state, "").unwrap();
    let next = || Answer::json(200, &json!({ "access_token": "one", "expires_in": 100, "refresh_token": "r2" }).to_string());
    let api = FakeApi::start([next(), next(), next()]).await.unwrap();
    let (url, context) = (api.url(), context().with_state(&state));
    let tokens = || {
        let (secret, refresh_token) = (Secret::Literal("x".into()), Secret::Literal("r1".into()));
        Entra { refresh_token: Some(&refresh_token), ..entra(&url, &secret) }.tokens(&name(), &context).unwrap()
    };
    let before = tokens();
    text(&before).await;
    std::fs::remove_file(&state).unwrap();
    pass(100).await;
    text(&before).await;
    text(&tokens()).await;
    let used: Vec<String> = api.requests().iter().map(|(request, _)| field(request, "refresh_token")).collect();
    assert_eq!(used, ["r1", "r2", "r2"]);
}

#[tokio::test]
async fn a_google_user_is_acted_for_by_refresh_token() {
    let api = FakeApi::start([granted("one", 3600)]).await.unwrap();
    let (secret, refresh) = (Secret::Literal("x".into()), Secret::Literal("r1".into()));
    let url = format!("{}/token", api.url());
    let settings = Refresh {
        client_id: "app",
        client_secret: &secret,
        refresh_token: &refresh,
        token_endpoint: Some(&url),
        patience: Duration::from_secs(20),
    };
    assert_eq!(text(&settings.tokens(&name(), &context()).unwrap()).await, "one");
    let (request, _) = &api.requests()[0];
    assert_eq!(request.line(), "POST /token");
    let expected = [("grant_type", "refresh_token"), ("client_id", "app"), ("client_secret", "x"), ("refresh_token", "r1")];
    assert_eq!(form(request), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

fn answer(status: u16, body: &Value, headers: HeaderMap) -> crate::http::api::Answer {
    crate::http::api::Answer { status, headers, body: body.to_string().into() }
}

/// A refusal on the wire, and what it means.
type Row = ((u16, Value), Verdict);

#[test]
fn every_refusal_of_a_token_has_its_verdict_and_every_rule_its_refusal() {
    let entra = |code: &str, number: u32| {
        (400, json!({ "error": code, "error_description": format!("AADSTS{number}: words.\r\nTrace ID: x"), "error_codes": [number] }))
    };
    let google = |status, code: &str, words: &str| (status, json!({ "error": code, "error_description": words }));
    let auth = Verdict::Unauthorized;
    let tables: [(&[Rule], Vec<Row>); 2] = [
        (
            entra::RULES,
            vec![
                ((503, json!({ "error": "temporarily_unavailable" })), Verdict::Unavailable),
                ((500, json!({ "error": "server_error" })), Verdict::Unavailable),
                ((502, json!(null)), Verdict::Unavailable),
                ((429, json!(null)), Verdict::Throttled(None)),
                (entra("invalid_request", 90006), Verdict::Unavailable),
                (entra("invalid_request", 90012), Verdict::Unavailable),
                (entra("invalid_request", 90024), Verdict::Unavailable),
                (entra("invalid_request", 90033), Verdict::Unavailable),
                (entra("invalid_request", 90090), Verdict::Unavailable),
                (entra("invalid_request", 90055), Verdict::Throttled(None)),
                (entra("invalid_client", 7_000_215), auth),
                (entra("invalid_client", 7_000_222), auth),
                (entra("invalid_client", 7_000_218), auth),
                (entra("unauthorized_client", 7_000_112), auth),
                (entra("unauthorized_client", 700_016), auth),
                (entra("invalid_client", 700_027), auth),
                (entra("invalid_request", 90002), auth),
                (entra("invalid_resource", 500_011), auth),
                (entra("invalid_client", 50012), auth),
                (entra("invalid_grant", 500_133), auth),
                (entra("invalid_client", 700_024), auth),
                (entra("access_denied", 530_032), auth),
                (entra("invalid_client", 90094), auth),
                (entra("invalid_grant", 65001), auth),
                (entra("invalid_grant", 700_082), auth),
                (entra("interaction_required", 50076), auth),
                (entra("invalid_scope", 70011), auth),
                (entra("unsupported_grant_type", 70003), auth),
                (entra("invalid_request", 900_144), auth),
                (entra("a_new_one", 1), auth),
            ],
        ),
        (
            google::RULES,
            vec![
                (google(503, "temporarily_unavailable", ""), Verdict::Unavailable),
                (google(500, "internal_failure", ""), Verdict::Unavailable),
                (google(429, "rate_limit_exceeded", ""), Verdict::Throttled(None)),
                (google(401, "unauthorized_client", "Client is unauthorized to retrieve access tokens using this method"), auth),
                (google(403, "access_denied", "Requested client not authorized."), auth),
                (google(400, "invalid_scope", "Invalid OAuth scope"), auth),
                (google(400, "invalid_grant", "Invalid email or User ID"), Verdict::SenderRefused),
                (google(400, "invalid_grant", "Not a valid email or user ID."), Verdict::SenderRefused),
                (
                    google(
                        400,
                        "invalid_grant",
                        "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
                    ),
                    auth,
                ),
                (google(400, "invalid_grant", "Invalid JWT Signature."), auth),
                (google(400, "invalid_grant", "Invalid grant: account not found"), auth),
                (google(400, "invalid_grant", "Token has been expired or revoked."), auth),
                (google(400, "invalid_grant", "Bad Request"), auth),
                (google(401, "invalid_client", "The OAuth client was not found."), auth),
            ],
        ),
    ];
    for (rules, rows) in tables {
        let mut met = vec![false; rules.len()];
        for ((status, body), verdict) in rows {
            let answer = answer(status, &body, HeaderMap::new());
            let Err(failure) = grant::read(&answer, rules, SystemTime::now()) else { panic!("{body} is a token") };
            assert_eq!(failure.name(), verdict.name(), "{body}");
            let (code, text) = (body["error"].as_str().unwrap_or_default(), body["error_description"].as_str().unwrap_or_default());
            if let Some(first) = rules.iter().position(|rule| rule.fits(status, code, &text.to_lowercase())) {
                met[first] = true;
                assert_eq!(failure.diagnostic().advice.unwrap_or_default(), rules[first].advice, "{body}");
            }
        }
        for (rule, met) in rules.iter().zip(met) {
            assert!(met, "no row shows {rule:?}");
        }
    }
}

#[test]
fn a_clock_that_is_wrong_is_named() {
    let now = httpdate::parse_http_date("Tue, 24 Nov 2026 11:00:00 GMT").unwrap();
    let refused =
        json!({ "error": "invalid_client", "error_description": "AADSTS700024: Client assertion is not within its valid time range." });
    for (date, expected) in [
        ("Tue, 24 Nov 2026 11:08:00 GMT", Some("this host's clock is 8m behind that of the token service")),
        ("Tue, 24 Nov 2026 10:00:00 GMT", Some("this host's clock is 1h ahead of that of the token service")),
        ("Tue, 24 Nov 2026 11:00:30 GMT", None),
    ] {
        let headers = HeaderMap::from_iter([(reqwest::header::DATE, date.parse().unwrap())]);
        let Err(failure) = grant::read(&answer(401, &refused, headers), entra::RULES, now) else { panic!("a token") };
        let text = &failure.diagnostic().text;
        assert_eq!(text.contains("this host's clock"), expected.is_some(), "{text}");
        assert!(text.contains(expected.unwrap_or_default()), "{text}");
    }
}

#[test]
fn a_pause_that_the_token_service_asks_for_is_kept() {
    let headers = HeaderMap::from_iter([(reqwest::header::RETRY_AFTER, "17".parse().unwrap())]);
    let answer = answer(429, &json!({ "error": "temporarily_throttled" }), headers);
    let failure = grant::read(&answer, entra::RULES, SystemTime::now()).err();
    assert!(matches!(failure, Some(Failure::Throttled { retry_after: Some(pause), .. }) if pause.as_secs() == 17), "{failure:?}");
}

#[test]
fn settings_that_cannot_work_are_named() {
    let secret = Secret::Literal("x".into());
    let path = PathBuf::from("/nowhere/x.pem");
    let good = entra("https://login.example", &secret);
    let none = Entra { client_secret: None, ..good };
    for (settings, key) in [
        (Entra { tenant: "", ..good }, "tenant"),
        (Entra { tenant: "a/b", ..good }, "tenant"),
        (Entra { tenant: "common", ..good }, "tenant"),
        (Entra { client_id: " ", ..good }, "client_id"),
        (Entra { authority: Some("http://login.example"), ..good }, "authority"),
        (none, "client_secret"),
        (Entra { certificate: Some(&path), ..none }, "private_key"),
        (Entra { private_key: Some(&path), ..none }, "certificate"),
        (Entra { certificate: Some(&path), private_key: Some(&path), ..good }, "client_secret"),
        (Entra { certificate: Some(&path), private_key: Some(&path), ..none }, "certificate"),
        (Entra { certificate: Some(&path), refresh_token: Some(&secret), ..none }, "refresh_token"),
    ] {
        let error: SettingsError = settings.tokens(&name(), &context()).unwrap_err();
        assert_eq!(error.key, key, "{error}");
    }
}
