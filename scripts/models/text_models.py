"""Text models for scripts/check-models.py: DistilBERT and E5 with seeded weights, and graphs that give their tokens back."""

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from comparison import ROOT, export, made, manifest, seeded

VOCABULARY = 4_000
TOKENS_MAX = 128
LABELS = ["ANGER", "JOY", "NEUTRAL", "SADNESS"]
# What tokenizers disagree about: case, accents in both forms, other scripts, spaces, marks, special tokens' names, length.
TEXTS = [
    "A cat sits on the mat.",
    "GRÖSSE, größe und Straße",
    "cafe\u0301 or café?",
    "これは日本語の文章です。東京",
    "Привет, мир! Ёлка",
    "  spaces\tand\n\nlines   ",
    "emoji 👍🏽 and signs → ½ ™ ①",
    "https://example.invalid/a?b=c&d=e#f user@example.invalid",
    "1,284.50 EUR on 2026-11-30",
    "[CLS] [MASK] <s> </s> <unk> are words here",
    "ﬁne ligatures ＡＢＣ and a zero\u200bwidth space",
    "word " * 400,
]


def corpus():
    """Texts to train a vocabulary on: this repository's pages, and the texts themselves."""
    return [page.read_text(encoding="utf-8") for page in sorted(ROOT.glob("crates/**/*.md"))] + TEXTS * 20


def word_piece():
    """BERT's, uncased."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(corpus(), trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=TOKENS_MAX)


def unigram():
    """XLM-R's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=VOCABULARY, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=TOKENS_MAX)


class Given(torch.nn.Module):
    """A model that gives its tokens back: each as a row that is 0 but for its place in the text, at its id."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, input_ids, attention_mask):
        places = torch.arange(1, input_ids.shape[1] + 1, dtype=torch.float32)
        rows = torch.nn.functional.one_hot(input_ids, self.size).to(torch.float32)
        return rows * places[None, :, None] * attention_mask[:, :, None]


class Named(torch.nn.Module):
    """A model with one of its outputs."""

    def __init__(self, model, output):
        super().__init__()
        self.model, self.output = model, output

    def forward(self, input_ids, attention_mask):
        return getattr(self.model(input_ids=input_ids, attention_mask=attention_mask), self.output)


def export_tokens(module, path, opset, output):
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=TOKENS_MAX)
    given = torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64)
    shapes = ({0: batch, 1: length}, {0: batch, 1: length})
    export(module, given, path, opset, ["input_ids", "attention_mask"], [output], shapes)


def encoder_manifest(folder, settings):
    files = [("encoder", "model.onnx"), ("tokenizer", "tokenizer.json")]
    manifest(folder, "sentence-encoder", "text.embed", files, settings)


def check_tokens(name, tokenizer, folder, opset, worker, report):
    """The ids, one by one: the vector is the places of each id in the text."""
    own = made(folder / f"{name}-tokens-{opset}")
    tokenizer.backend_tokenizer.save(str(own / "tokenizer.json"))
    size = tokenizer.backend_tokenizer.get_vocab_size()
    export_tokens(Given(size), own / "model.onnx", opset, "last_hidden_state")
    encoder_manifest(own, [f"tokens_max = {TOKENS_MAX}", f"pad_id = {tokenizer.pad_token_id}"])
    equal = 0
    for text in TEXTS:
        # gpuctl's texts have no spaces at their ends.
        ids = tokenizer(text.strip(), truncation=True, return_tensors="pt")["input_ids"][0]
        expected = torch.zeros(size)
        for place, token in enumerate(ids, start=1):
            expected[token] += place
        found = worker.embed(text, own.name)
        off = (torch.tensor(found["vector"]) - expected / expected.norm()).abs().max().item()
        equal += found["tokens"] == len(ids) and off < 1e-5
    report.line(equal == len(TEXTS), own.name, f"{equal} of {len(TEXTS)} texts have the same ids")


def check_e5(folder, opset, worker, report):
    tokenizer = unigram()
    check_tokens("e5", tokenizer, folder, opset, worker, report)
    own = made(folder / f"e5-{opset}")
    config = XLMRobertaConfig(
        vocab_size=VOCABULARY, hidden_size=96, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192,
        max_position_embeddings=TOKENS_MAX + 2, pad_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    model = seeded(XLMRobertaModel, config)
    tokenizer.backend_tokenizer.save(str(own / "tokenizer.json"))
    export_tokens(Named(model, "last_hidden_state"), own / "model.onnx", opset, "last_hidden_state")
    prefixes = ['query_prefix = "query: "', 'passage_prefix = "passage: "']
    encoder_manifest(own, [f"tokens_max = {TOKENS_MAX}", "pad_id = 1", *prefixes])
    for number, text in enumerate(TEXTS):
        kind = ("query", "passage")[number % 2]
        given = tokenizer(f"{kind}: {text.strip()}", truncation=True, return_tensors="pt")
        with torch.no_grad():
            states = model(**{name: given[name] for name in ("input_ids", "attention_mask")}).last_hidden_state[0]
        expected = torch.nn.functional.normalize(states.mean(0), dim=0)
        report.vectors(f"{own.name} text {number}", worker.embed(text, own.name, **{"as": kind})["vector"], expected)


def check_distilbert(folder, opset, worker, report):
    tokenizer = word_piece()
    check_tokens("distilbert", tokenizer, folder, opset, worker, report)
    own = made(folder / f"distilbert-{opset}")
    config = DistilBertConfig(
        vocab_size=VOCABULARY, dim=96, n_layers=3, n_heads=4, hidden_dim=192, max_position_embeddings=TOKENS_MAX, num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)), label2id={label: number for number, label in enumerate(LABELS)}, initializer_range=0.15,
    )  # fmt: skip
    model = seeded(DistilBertForSequenceClassification, config)
    tokenizer.backend_tokenizer.save(str(own / "tokenizer.json"))
    config.to_json_file(own / "config.json")
    export_tokens(Named(model, "logits"), own / "model.onnx", opset, "logits")
    files = [("classifier", "model.onnx"), ("tokenizer", "tokenizer.json"), ("config", "config.json")]
    manifest(own, "text-classifier", "text.classify", files, [f"tokens_max = {TOKENS_MAX}"])
    for number, text in enumerate(TEXTS):
        given = tokenizer(text, truncation=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(given["input_ids"], given["attention_mask"]).logits[0]
        found = worker.on_text("text.classify", text, own.name, top=len(LABELS))
        scores = {label["label"]: label["score"] for label in found["labels"]}
        # Scores are softmax of the logits: their logarithms are the logits but for one number for all.
        log = torch.tensor([scores[label] for label in LABELS]).log()
        report.logits(f"{own.name} text {number}", (log - log.mean()).tolist(), logits - logits.mean())
