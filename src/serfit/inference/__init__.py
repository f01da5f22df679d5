"""Using a trained model: what a run, a bundle or an exported file says about speech it has never heard.

    run directory | bundle | hub id | .onnx  ->  Network(s)  ->  Recogniser  ->  Emotion, Curve, tables, pages

    about         what a network predicts and how it wants its audio: the noun in every bundle
    networks      a network that hears waveforms: torch's
    bundle        a network on disk that needs no encoder, corpus or run beside it
    source        what a user names, opened
    calibrated    a network through its calibration
    recogniser    one network or several (an ensemble), asked about arrays and files
    windows       emotion through time: windows that glide over recordings of any length
    pictures      a curve as SVG: over time, and as a path on the circumplex
    voice         where somebody speaks, by energy
    stream        the same windows while somebody speaks
    listing       files, folders, globs and manifests as one list
    labelling     a list labelled, in batches of like length, each recording as if alone
    table         labels as CSV or JSON lines
    vectors       pooled vectors as npz or Parquet
    ledger        what has been labelled so far, on disk
    bulk          the story of `serfit predict`

Nothing here trains; a contract in pyproject.toml keeps the trainer out.
"""
