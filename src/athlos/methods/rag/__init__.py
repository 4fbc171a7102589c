"""Questions over passages: closed book, naive retrieval, translation, and four ways of several steps."""
