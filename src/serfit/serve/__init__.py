"""A page in the browser that asks a model: `serfit serve RUN_OR_BUNDLE`.

    words      every text of the page, per language
    answers    a recording becomes what the page shows; needs no browser and no gradio
    page       the page in one language, in gradio
    guard      what may be asked of the server, and what the browser may fetch: nothing from anywhere else
    server     the pages of all languages behind the guard, on one port

Recordings are kept in a private folder, each only until it has been heard.
"""
