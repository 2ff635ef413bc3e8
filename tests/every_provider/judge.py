"""Whether request bodies are what the vendors' own libraries would send.

Reads one JSON object from standard input: kind -> list of request bodies that Postrider made. Each body is
taken apart, put together again by the vendor's library (or read by its model), and compared. Prints each
difference, and exits with 1 if there is any.
"""

import json
import sys


class Wrong(Exception):
    pass


def expect(condition, what):
    if not condition:
        raise Wrong(what)


def same(made, ours):
    expect(made == ours, f"the library makes\n  {json.dumps(made)[:1500]}\nand we made\n  {json.dumps(ours)[:1500]}")


def known(model, body, where):
    """A body has only members that a pydantic model knows, under their names on the wire."""
    import pydantic

    names = {field.alias or name: field for name, field in model.model_fields.items()}
    for member, value in body.items():
        expect(member in names, f"{where}: {model.__name__} knows no member {member!r}")
        for item in value if isinstance(value, list) else [value]:
            inner = next((a for a in types_in(names[member].annotation) if issubclass(a, pydantic.BaseModel)), None)
            if inner and isinstance(item, dict):
                known(inner, item, f"{where}.{member}")


def types_in(annotation):
    import typing

    inner = typing.get_args(annotation)
    if not inner:
        return [annotation] if isinstance(annotation, type) else []
    return [one for part in inner for one in types_in(part)]


def sendgrid(body):
    from sendgrid.helpers import mail as m

    mail = m.Mail()
    mail.from_email = m.From(body["from"]["email"], body["from"].get("name"))
    mail.subject = m.Subject(body["subject"])
    for ours in body["personalizations"]:
        personalization = m.Personalization()
        for list_name, add in (("to", m.To), ("cc", m.Cc), ("bcc", m.Bcc)):
            for one in ours.get(list_name, []):
                personalization.add_email(add(one["email"], one.get("name")))
        mail.add_personalization(personalization)
    for part in body["content"]:
        mail.add_content(m.Content(part["type"], part["value"]))
    for one in body.get("attachments", []):
        mail.add_attachment(
            m.Attachment(
                one["content"],
                one["filename"],
                one.get("type"),
                one.get("disposition"),
                one.get("content_id"),
            )
        )
    for name, value in body.get("headers", {}).items():
        mail.add_header(m.Header(name, value))
    for one in body.get("categories", []):
        mail.add_category(m.Category(one))
    if "reply_to" in body:
        mail.reply_to = m.ReplyTo(body["reply_to"]["email"], body["reply_to"].get("name"))
    tracking = m.TrackingSettings()
    settings = body["tracking_settings"]
    tracking.click_tracking = m.ClickTracking(**settings["click_tracking"])
    tracking.open_tracking = m.OpenTracking(**settings["open_tracking"])
    mail.tracking_settings = tracking
    made = mail.get()
    # Younger than the library's last word on it.
    if "reply_to_list" in body:
        made["reply_to_list"] = [m.ReplyTo(one["email"], one.get("name")).get() for one in body["reply_to_list"]]
    # The library has the last attachment first.
    for message in (made, body):
        message.get("attachments", []).sort(key=lambda one: one["filename"])
    same(made, body)


def resend(body):
    import pydantic
    from resend import Emails
    from resend.emails import _attachment, _tag

    for shape in (Emails.SendParams, _attachment.Attachment, _tag.Tag):
        shape.__pydantic_config__ = pydantic.ConfigDict(extra="forbid")
    pydantic.TypeAdapter(Emails.SendParams).validate_python(body, strict=True)


def brevo(body):
    import inspect
    import re

    from brevo import transactional_emails as t
    from brevo.transactional_emails.raw_client import RawTransactionalEmailsClient as Client

    parameters = inspect.signature(Client.send_transac_email).parameters
    models = {
        "sender": t.SendTransacEmailRequestSender,
        "replyTo": t.SendTransacEmailRequestReplyTo,
        "to": t.SendTransacEmailRequestToItem,
        "cc": t.SendTransacEmailRequestCcItem,
        "bcc": t.SendTransacEmailRequestBccItem,
        "attachment": t.SendTransacEmailRequestAttachmentItem,
    }
    for member, value in body.items():
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", member).lower()
        expect(name in parameters, f"send_transac_email knows no {member!r}")
        for item in value if isinstance(value, list) else [value]:
            if member in models:
                known(models[member], item, member)
                models[member].model_validate(item, strict=True)
    expect(body.get("sender") and body.get("to") and body.get("subject") and body.get("htmlContent"), "a required member is missing")


def mailersend(body):
    from mailersend.models.email import EmailRequest

    known(EmailRequest, body, "email")
    EmailRequest.model_validate(body)


def scaleway(body):
    from scaleway.tem.v1alpha1 import types as t
    from scaleway.tem.v1alpha1.marshalling import marshal_CreateEmailRequest

    address = lambda one: t.CreateEmailRequestAddress(email=one["email"], name=one.get("name"))
    addresses = lambda name: [address(one) for one in body[name]] if name in body else None
    made = t.CreateEmailRequest(
        from_=address(body["from"]),
        subject=body["subject"],
        text=body.get("text"),
        html=body.get("html"),
        project_id=body["project_id"],
        to=addresses("to"),
        cc=addresses("cc"),
        bcc=addresses("bcc"),
        attachments=[
            t.CreateEmailRequestAttachment(name=one["name"], type_=one["type"], content=one["content"])
            for one in body["attachments"]
        ]
        if "attachments" in body
        else None,
        additional_headers=[
            t.CreateEmailRequestHeader(key=one["key"], value=one["value"]) for one in body["additional_headers"]
        ]
        if "additional_headers" in body
        else None,
    )
    same(marshal_CreateEmailRequest(made, None), body)


def postmark(body):
    from postmarker.models.emails import Email

    members = {"From", "To", "Cc", "Bcc", "Subject", "TextBody", "HtmlBody", "ReplyTo", "Headers", "Attachments"}
    members |= {"MessageStream", "Tag", "Metadata", "TrackOpens", "TrackLinks"}
    expect(set(body) <= members, f"unknown members: {set(body) - members}")
    headers = {one["Name"]: one["Value"] for one in body.get("Headers", [])}
    attachments = [dict(one) for one in body.get("Attachments", [])]
    made = Email(manager=None, **{**body, "Headers": headers, "Attachments": attachments}).as_dict()
    same({k: v for k, v in made.items() if v not in ([], None)}, {k: v for k, v in body.items() if v not in ([], None)})


def sparkpost(body):
    from sparkpost.transmissions import Transmissions

    made = Transmissions("", "key")._translate_keys(
        recipients=[{"address": dict(one["address"])} for one in body["recipients"]],
        email_rfc822=body["content"]["email_rfc822"],
    )
    expect(set(body["content"]) == {"email_rfc822"}, f"more content than the message: {set(body['content'])}")
    expect(made["content"]["email_rfc822"] == body["content"]["email_rfc822"], "the message differs")
    expect(len(made["recipients"]) == len(body["recipients"]), "the recipients differ")


JUDGES = {
    "sendgrid": sendgrid,
    "resend": resend,
    "brevo": brevo,
    "mailersend": mailersend,
    "scaleway": scaleway,
    "postmark": postmark,
    "sparkpost": sparkpost,
}


def main():
    wrong = 0
    for kind, bodies in json.load(sys.stdin).items():
        judge = JUDGES[kind]
        for number, body in enumerate(bodies):
            try:
                judge(body)
            except Exception as error:  # A library's own refusal is what is looked for here.
                wrong += 1
                if wrong <= 5:
                    print(f"{kind}, body {number}: {type(error).__name__}: {error}")
        print(f"{kind}: {len(bodies)} bodies judged")
    sys.exit(1 if wrong else 0)


main()
