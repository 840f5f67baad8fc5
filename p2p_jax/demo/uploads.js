// Lets the page take image files whose type the browser does not know, such as IMG_0903.HEIC: the page itself takes
// only files of the type image/*. ENDINGS is put in front: endings in small letters, with the dot.

const known = (name) => ENDINGS.some((ending) => name.toLowerCase().endsWith(ending));

function typed(files) {
  const all = new DataTransfer();
  for (const file of files) {
    const isStrange = !file.type.startsWith("image/") && known(file.name);
    all.items.add(isStrange ? new File([file], file.name, { type: "image/x-other" }) : file);
  }
  return all;
}

const takesImages = (element) => element instanceof HTMLInputElement && element.type === "file" && element.accept.startsWith("image/*");

document.addEventListener("click", (event) => {
  if (takesImages(event.target)) event.target.accept = ["image/*", ...ENDINGS, ...ENDINGS.map((x) => x.toUpperCase())].join(",");
}, true);

document.addEventListener("change", (event) => {
  if (takesImages(event.target)) event.target.files = typed(event.target.files).files;
}, true);

document.addEventListener("drop", (event) => {
  const files = [...(event.dataTransfer?.files ?? [])];
  if (!event.isTrusted || !files.some((file) => !file.type.startsWith("image/") && known(file.name))) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  event.target.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: typed(files) }));
}, true);
