//! Service accounts, their tokens, and what they may do.
//!
//! The API server takes note of a changed right a moment after the change: every method here waits until it has. A token of an
//! account that is gone may still pass for ten seconds, for so long the server remembers that it was good.

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::namespace::create;
use super::{Cluster, Namespace};
use crate::support::agent::eventually;

/// The verbs of a watcher.
pub(crate) const READ: [&str; 3] = ["get", "list", "watch"];

/// A service account.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    namespace: String,
    name: String,
}

impl Account {
    /// The user that its tokens stand for.
    pub(crate) fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

impl Namespace {
    /// Creates a service account, which may do nothing yet.
    pub(crate) async fn account(&self, name: &str) -> Account {
        let _: ServiceAccount = self.create_object(json!({"metadata": {"name": name}})).await;
        Account { namespace: self.name().to_owned(), name: name.to_owned() }
    }

    /// A fresh token of an account, good for an hour.
    pub(crate) async fn token(&self, account: &Account) -> String {
        let api: Api<ServiceAccount> = self.api();
        let request = TokenRequest::default();
        let answer = api.create_token_request(&account.name, &PostParams::default(), &request).await.expect("a token");
        answer.status.expect("a token").token
    }

    /// Makes every token of an account invalid: the account is replaced by another of its name, with the same rights.
    pub(crate) async fn invalidate_tokens(&self, account: &Account) {
        let api: Api<ServiceAccount> = self.api();
        api.delete(&account.name, &DeleteParams::default()).await.expect("it is deleted");
        self.account(&account.name).await;
    }

    /// Lets an account do something in this namespace: `rules` is a list as roles have it.
    pub(crate) async fn allow(&self, cluster: &Cluster, account: &Account, rules: Value) -> Grant {
        Grant::new(cluster, Some(self.name().to_owned()), account, rules).await
    }
}

impl Cluster {
    /// Lets an account do something everywhere: `rules` is a list as roles have it.
    pub(crate) async fn allow(&self, account: &Account, rules: Value) -> Grant {
        Grant::new(self, None, account, rules).await
    }
}

/// A role and its binding to one account.
pub(crate) struct Grant {
    client: Client,
    name: String,
    /// None for the whole cluster.
    namespace: Option<String>,
    account: Account,
    rules: Value,
}

impl Grant {
    async fn new(cluster: &Cluster, namespace: Option<String>, account: &Account, rules: Value) -> Self {
        let (client, name) = (cluster.admin(), format!("{}-{:08x}", account.name, rand::random::<u32>()));
        let role = json!({"metadata": {"name": name}, "rules": rules});
        match &namespace {
            Some(namespace) => drop(create::<Role>(&Api::namespaced(client.clone(), namespace), role).await),
            None => drop(create::<ClusterRole>(&Api::all(client.clone()), role).await),
        }
        let grant = Self { client, name, namespace, account: account.clone(), rules };
        grant.restore().await;
        grant
    }

    /// Takes the right away.
    pub(crate) async fn withdraw(&self) {
        let (client, how) = (self.client.clone(), DeleteParams::default());
        let gone = match &self.namespace {
            Some(namespace) => {
                Api::<RoleBinding>::namespaced(client, namespace).delete(&self.name, &how).await.map(drop)
            }
            None => Api::<ClusterRoleBinding>::all(client).delete(&self.name, &how).await.map(drop),
        };
        gone.expect("the binding is deleted");
        self.until(false).await;
    }

    /// Gives it back.
    pub(crate) async fn restore(&self) {
        let kind = if self.namespace.is_some() { "Role" } else { "ClusterRole" };
        let Account { namespace: home, name } = &self.account;
        let binding = json!({
            "metadata": {"name": self.name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": self.name},
            "subjects": [{"kind": "ServiceAccount", "namespace": home, "name": name}],
        });
        match &self.namespace {
            Some(namespace) => {
                drop(create::<RoleBinding>(&Api::namespaced(self.client.clone(), namespace), binding).await);
            }
            None => drop(create::<ClusterRoleBinding>(&Api::all(self.client.clone()), binding).await),
        }
        self.until(true).await;
    }

    /// Waits until the API server knows; one right of the first rule stands for all of them.
    async fn until(&self, allowed: bool) {
        let first = |key: &str| &self.rules[0][key][0];
        let mut wish = json!({"group": first("apiGroups"), "resource": first("resources"), "verb": first("verbs")});
        if let Some(namespace) = &self.namespace {
            wish["namespace"] = json!(namespace);
        }
        let question = json!({"spec": {"user": self.account.user(), "resourceAttributes": wish}});
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        eventually("the right is known", async || {
            let review: SubjectAccessReview = create(&reviews, question.clone()).await;
            (review.status.expect("an answer").allowed == allowed).then_some(())
        })
        .await;
    }
}
