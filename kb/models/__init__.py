from kb.models.accounts import ApiToken, Membership, User
from kb.models.chat import Citation, Conversation, Feedback, Message, ModelDeployment
from kb.models.documents import Chunk, Collection, Document, DocumentPage, DocumentVersion
from kb.models.indexes import Embedding, EmbeddingSpace, PendingVector, Posting
from kb.models.jobs import Job

__all__ = [
    "ApiToken",
    "Chunk",
    "Citation",
    "Collection",
    "Conversation",
    "Document",
    "DocumentPage",
    "DocumentVersion",
    "Embedding",
    "EmbeddingSpace",
    "Feedback",
    "Job",
    "Membership",
    "Message",
    "ModelDeployment",
    "PendingVector",
    "Posting",
    "User",
]
