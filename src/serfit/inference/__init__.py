"""Using a trained model: what a run, a bundle or an exported file predicts for new speech.

    run directory | bundle | hub id | .onnx  ->  Network(s)  ->  Recogniser  ->  Emotion, Curve, tables, pages

    about         what a network predicts and how it wants its audio: recorded in every bundle
    networks      a network that takes waveforms: torch's
    bundle        a network on disk that needs no encoder, corpus or run beside it
    onnx          a network in an ONNX file
    begun         a network before its first training step, new or gone on from one of these
    source        opens whichever of these a user names
    calibrated    a network through its calibration
    recogniser    one network or several (an ensemble), for arrays and files
    windows       emotion over time: windows that glide over recordings of any length
    pictures, png a curve as SVG and as PNG: over time, and as a path on the circumplex
    stream        the same windows while somebody speaks
    labelling/    lists of recordings, resumably: `serfit predict`
    public/       public models of others, as bundles
    publish/      bundles, ONNX files, folders for the hub and their model card
    page/         the page that asks a model

Nothing here trains; a contract in pyproject.toml keeps the trainer out.
"""
